package pretrained_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/checkpoint"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

func init() { registerFlat("FlatPieces", pretrained.Architecture{}) }

// piecesCheckpoint has tensors of n elements of float32 each, the k-th of all value k+1: the sizes are such
// that some take several pieces of the staging buffer.
func piecesCheckpoint(t *testing.T, sizes ...int) string {
	var params []any
	var sources []safetensors.Source
	for k, n := range sizes {
		name := string(rune('a' + k))
		params = append(params, param(name, []int{n}))
		data := make([]byte, 4*n)
		for i := range n {
			binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(float32(k+1)))
		}
		sources = append(sources, safetensors.Source{Name: name, DType: safetensors.F32, Shape: []int{n}, Write: safetensors.Data(data)})
	}
	config, err := json.Marshal(map[string]any{"model_type": "FlatPieces", "architectures": []string{"FlatPieces"}, "dtype": "float32", "params": params})
	require.NoError(t, err)
	return writeCheckpoint(t, string(config), sources)
}

func isPieces(t *testing.T, m pretrained.Model) {
	for name, x := range nn.StateDict(m) {
		torch.Scope(func() {
			want := torch.Full(x.Shape(), float64(name[0]-'a'+1), torch.TensorOptions{DType: x.DType()})
			require.True(t, x.Equal(want), name)
		})
	}
}

// streams are the ways in which weights arrive.
var streams = map[string]pretrained.Options{
	"mapped":           {},
	"read":             {DisableMmap: true},
	"read, one thread": {DisableMmap: true, Threads: 1},
	"cast":             {DType: torch.BFloat16},
	"cast, 7 threads":  {DType: torch.Float64, Threads: 7},
}

func TestProgressCountsEveryByte(t *testing.T) {
	dir := piecesCheckpoint(t, 3<<20, 1, 2<<20+3, 0, 77)
	const total = 4 * (3<<20 + 1 + 2<<20 + 3 + 77)
	for name, opts := range streams {
		t.Run(name, func(t *testing.T) {
			var last int64
			opts.Progress = func(done, all int64) {
				require.EqualValues(t, total, all)
				require.GreaterOrEqual(t, done, last)
				last = done
			}
			m, r := load(t, dir, opts)
			require.EqualValues(t, total, last)
			require.EqualValues(t, total, r.BytesRead)
			isPieces(t, m)
		})
	}
}

// Readers hold no permit to compute but while they convert: a callback may wait for somebody who needs one.
func TestReadersHoldNoPermit(t *testing.T) {
	threads := max(2, runtime.GOMAXPROCS(0)) + 2
	dir := piecesCheckpoint(t, slices.Repeat([]int{1000}, threads)...)
	computed := make(chan struct{})
	var once sync.Once
	_, _ = load(t, dir, pretrained.Options{DType: torch.BFloat16, Threads: threads, Progress: func(int64, int64) {
		once.Do(func() {
			time.Sleep(20 * time.Millisecond) // the others come here too
			go torch.Scope(func() { close(computed) })
			select {
			case <-computed:
			case <-time.After(20 * time.Second):
				t.Error("all permits are held")
			}
		})
	}})
}

// Weights of another name or shape are not read, so they are not counted either.
func TestBytesReadAreThoseUsed(t *testing.T) {
	_, r := load(t, loaderCase(t, "missing-and-unexpected"), pretrained.Options{})
	c, err := checkpoint.Open(loaderCase(t, "missing-and-unexpected"))
	require.NoError(t, err)
	defer c.Close()
	var all, unexpected int64
	for _, info := range c.All() {
		all += int64(info.Bytes)
		for _, key := range r.UnexpectedKeys {
			if info.Name == key {
				unexpected += int64(info.Bytes)
			}
		}
	}
	require.Positive(t, unexpected)
	require.Equal(t, all-unexpected, r.BytesRead)
}

// A cancelled load stops within a piece of each reader.
func TestCancelWithinAPiece(t *testing.T) {
	const piece = 4 << 20 // the size of a reader's buffer
	dir := piecesCheckpoint(t, 16<<20)
	live := torch.LiveTensors()
	for name, opts := range streams {
		if name == "mapped" {
			continue // there are no pieces
		}
		t.Run(name, func(t *testing.T) {
			during, cancel := context.WithCancel(ctx)
			var last int64
			opts.Progress = func(done, _ int64) { last = done; cancel() }
			_, _, err := pretrained.Load(during, dir, opts)
			require.ErrorIs(t, err, context.Canceled)
			require.LessOrEqual(t, last, int64(piece))
			require.Equal(t, live, torch.LiveTensors())
		})
	}
}

// Reliability D1: a file that is cut while it is read. A load that maps nothing never comes to harm: it is an
// error, or it was done before.
func TestTruncatedWhileLoading(t *testing.T) {
	sizes := []int{1 << 20, 3 << 20, 100, 1 << 19}
	dir := piecesCheckpoint(t, sizes...)
	whole, err := os.ReadFile(filepath.Join(dir, "model.safetensors"))
	require.NoError(t, err)
	live, open := torch.LiveTensors(), descriptors(t)
	random := rand.New(rand.NewPCG(7, 7))
	cut := 0
	for trial := range 100 {
		at, size := random.Int64N(int64(len(whole))), random.Int64N(int64(len(whole)))
		path := filepath.Join(dir, "model.safetensors")
		require.NoError(t, os.Remove(path)) // a new inode: nothing of the trial before is mapped
		require.NoError(t, os.WriteFile(path, whole, 0o600))
		opts := pretrained.Options{DisableMmap: true, Threads: 1 + trial%4}
		if trial%2 == 1 {
			opts.DType = torch.Float16
		}
		var once sync.Once
		truncated := make(chan error, 1)
		opts.Progress = func(done, _ int64) {
			if done >= at {
				once.Do(func() { go func() { truncated <- os.Truncate(path, size) }() })
			}
		}
		m, _, err := pretrained.Load(ctx, dir, opts)
		once.Do(func() { truncated <- nil }) // it failed before it got there
		require.NoError(t, <-truncated)
		if err != nil {
			require.ErrorIs(t, err, pretrained.ErrTruncated)
			require.ErrorContains(t, err, path)
			cut++
			continue
		}
		isPieces(t, m)
		m.Close()
	}
	t.Logf("%d of 100 loads met a file that had been cut", cut)
	require.Greater(t, cut, 20, "too few loads were hit")
	require.Equal(t, live, torch.LiveTensors())
	require.Equal(t, open, descriptors(t))
}

// A file that grows while it is loaded is not what it was when it was opened: an error, however it is read.
func TestGrownWhileLoading(t *testing.T) {
	for name, opts := range streams {
		t.Run(name, func(t *testing.T) {
			dir := piecesCheckpoint(t, 3<<20, 5)
			path := filepath.Join(dir, "model.safetensors")
			live, open := torch.LiveTensors(), descriptors(t)
			var once sync.Once
			var grown error
			opts.Progress = func(_, _ int64) {
				once.Do(func() {
					var f *os.File
					if f, grown = os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0); grown == nil {
						_, err := f.WriteString("more")
						grown = errors.Join(err, f.Close())
					}
				})
			}
			_, _, err := pretrained.Load(ctx, dir, opts)
			require.NoError(t, grown)
			var e *pretrained.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, path, e.File)
			require.ErrorIs(t, err, safetensors.ErrChanged)
			require.Equal(t, live, torch.LiveTensors())
			require.Equal(t, open, descriptors(t))
		})
	}
}

// A checkpoint that is replaced while it is read: what was opened is what is loaded.
func TestReplacedWhileLoading(t *testing.T) {
	for name, opts := range streams {
		t.Run(name, func(t *testing.T) {
			dir, other := piecesCheckpoint(t, 3<<20, 5), piecesCheckpoint(t, 1, 2, 3)
			var once sync.Once
			opts.Progress = func(_, _ int64) {
				once.Do(func() {
					require.NoError(t, os.Rename(filepath.Join(other, "model.safetensors"), filepath.Join(dir, "model.safetensors")))
				})
			}
			m, _ := load(t, dir, opts)
			isPieces(t, m)
		})
	}
}

func TestManyLoadsAtOnce(t *testing.T) {
	dir := loaderCase(t, "sharded")
	want := map[string][32]byte{}
	m, _ := load(t, dir, pretrained.Options{})
	for name, x := range state(m) {
		want[name] = sha256.Sum256(x.Bytes())
	}
	live, open := torch.LiveTensors(), descriptors(t)
	var all sync.WaitGroup
	failed := make(chan error, 16)
	for i := range 16 {
		all.Go(func() {
			for range 5 {
				m, _, err := pretrained.Load(ctx, dir, pretrained.Options{DisableMmap: i%2 == 0, Strict: true})
				if err != nil {
					failed <- err
					return
				}
				for name, x := range state(m) {
					if sha256.Sum256(x.Bytes()) != want[name] {
						failed <- errors.New(name + " differs")
					}
				}
				m.Close()
			}
		})
	}
	all.Wait()
	close(failed)
	for err := range failed {
		require.NoError(t, err)
	}
	require.Equal(t, live, torch.LiveTensors())
	require.Equal(t, open, descriptors(t))
}

// descriptors counts those that are open, 0 where that can't be known.
func descriptors(t *testing.T) int {
	if runtime.GOOS != "linux" {
		return 0
	}
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(fds)
}
