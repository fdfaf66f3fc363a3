package pickle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/atomicfile"
)

// filled is a checkpoint of six tensors, of which the last shares the storage of the first, made of one byte.
func filled(fill byte, shards int) ([]Named, ShardOptions) {
	var tensors []Named
	for i := range 5 {
		s := &Storage{Bytes: 600, Data: bytes.NewReader(bytes.Repeat([]byte{fill}, 600))}
		tensors = append(tensors, Named{fmt.Sprint("t", i), &Tensor{DType: "uint8", Shape: []int{20, 30}, Strides: []int{30, 1}, Storage: s}})
	}
	tensors = append(tensors, Named{"tied", &Tensor{DType: "uint8", Shape: []int{600}, Strides: []int{1}, Storage: tensors[0].Tensor.Storage}})
	return tensors, ShardOptions{MaxShardBytes: int64(3000 / shards), Documents: []Document{{Name: "config.json", Data: []byte{fill}}}}
}

func saveFilled(ctx context.Context, dir string, fill byte, shards int) error {
	tensors, o := filled(fill, shards)
	_, err := WriteSharded(ctx, dir, tensors, o)
	return err
}

// foundFill reads the checkpoint of a folder as a loader does, and gives the byte that all is made of; 0 if there is none.
func foundFill(t *testing.T, dir string) (fill byte) {
	files := []string{"pytorch_model.bin"}
	promised := map[string]string{}
	if _, err := os.Lstat(filepath.Join(dir, files[0])); errors.Is(err, fs.ErrNotExist) {
		text, err := os.ReadFile(filepath.Join(dir, "pytorch_model.bin.index.json"))
		if errors.Is(err, fs.ErrNotExist) {
			return 0
		}
		require.NoError(t, err)
		var index struct {
			WeightMap map[string]string `json:"weight_map"`
		}
		require.NoError(t, json.Unmarshal(text, &index))
		promised, files = index.WeightMap, nil
		for _, name := range promised {
			if !slices.Contains(files, name) {
				files = append(files, name)
			}
		}
	}
	n := 0
	for _, name := range files {
		f, err := Open(filepath.Join(dir, name))
		require.NoError(t, err)
		for _, info := range f.Tensors() {
			if len(promised) > 0 {
				require.Equal(t, name, promised[info.Name])
			}
			data := make([]byte, info.Bytes)
			require.NoError(t, f.ReadTensor(info.Name, data))
			if fill == 0 {
				fill = data[0]
			}
			require.Equal(t, bytes.Repeat([]byte{fill}, 600), data, "a mix of two checkpoints")
			n++
		}
		require.NoError(t, f.Close())
	}
	require.Equal(t, 6, n)
	return fill
}

func names(t *testing.T, dir string) (list []string) {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// Every operation of a save fails in turn, and all from one on. Then the old checkpoint is found or the new one, whole;
// the old one, with nothing else in its folder, if the error came before the first rename.
func TestEveryFaultWhileSavingShards(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct{ old, next int }{{0, 1}, {1, 1}, {3, 3}, {1, 3}, {3, 1}, {0, 3}} {
		t.Run(fmt.Sprint(c.old, " to ", c.next), func(t *testing.T) {
			if testing.Short() && c.old != 3 {
				t.Skip("long")
			}
			start := func() string {
				dir, err := os.MkdirTemp("/dev/shm", "torchgo-test-")
				if err != nil {
					dir = t.TempDir()
				}
				t.Cleanup(func() { _ = os.RemoveAll(dir) })
				if c.old > 0 {
					require.NoError(t, saveFilled(ctx, dir, 'a', c.old))
				}
				return dir
			}
			old := byte(0)
			if c.old > 0 {
				old = 'a'
			}
			ops := []atomicfile.Op{}
			restore := atomicfile.Intercept(func(op atomicfile.Op, _ string) error { ops = append(ops, op); return nil })
			dir := start()
			made := len(ops)
			require.NoError(t, saveFilled(ctx, dir, 'b', c.next))
			restore()
			ops = ops[made:]
			complete := names(t, dir)
			require.Equal(t, byte('b'), foundFill(t, dir))
			renamed := slices.Index(ops, atomicfile.OpRename)
			for n := range ops {
				for _, forever := range []bool{false, true} {
					dir := start()
					before := names(t, dir)
					i := 0
					restore := atomicfile.Intercept(func(atomicfile.Op, string) error {
						i++
						if i-1 == n || forever && i-1 > n {
							return syscall.ENOSPC
						}
						return nil
					})
					err := saveFilled(ctx, dir, 'b', c.next)
					restore()
					got := foundFill(t, dir)
					switch {
					case err == nil:
						require.Equal(t, byte('b'), got)
						require.Equal(t, complete, names(t, dir))
					case n < renamed:
						require.ErrorIs(t, err, syscall.ENOSPC)
						require.Equal(t, old, got)
						if !forever {
							require.Equal(t, before, names(t, dir))
						}
					default:
						require.Contains(t, []byte{old, 'b'}, got)
					}
					require.NoError(t, saveFilled(ctx, dir, 'b', c.next))
					require.Equal(t, complete, names(t, dir), "the next save cleans up")
				}
			}
		})
	}
}

func TestWriteShardedRefuses(t *testing.T) {
	ctx := context.Background()
	tensors, o := filled('a', 1)
	twice := append(slices.Clone(tensors), tensors[0])
	_, err := WriteSharded(ctx, t.TempDir(), twice, o)
	require.ErrorIs(t, err, ErrDuplicate)
	for _, variant := range []string{"../x", "a/b", `a\b`, "x\x00"} {
		dir := t.TempDir()
		o.Variant = variant
		_, err := WriteSharded(ctx, dir, tensors, o)
		require.ErrorIs(t, err, ErrPath, variant)
		require.Empty(t, names(t, dir))
	}
	o.Variant = "fp16"
	dir := t.TempDir()
	files, err := WriteSharded(ctx, dir, tensors, o)
	require.NoError(t, err)
	require.Equal(t, []string{"pytorch_model.fp16.bin"}, files)
	o.MaxShardBytes = 1500
	files, err = WriteSharded(ctx, dir, tensors, o)
	require.NoError(t, err)
	require.Equal(t, []string{"pytorch_model.fp16-00001-of-00003.bin", "pytorch_model.fp16-00002-of-00003.bin", "pytorch_model.fp16-00003-of-00003.bin",
		"pytorch_model.bin.index.fp16.json"}, files)

	// Safetensors that a reader would take instead.
	for _, name := range []string{"model.fp16.safetensors", "model.safetensors.index.fp16.json"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
		before := names(t, dir)
		_, err = WriteSharded(ctx, dir, tensors, o)
		require.ErrorContains(t, err, name)
		require.ErrorContains(t, err, "save into another folder")
		require.Equal(t, before, names(t, dir))
		require.NoError(t, os.Remove(filepath.Join(dir, name)))
	}
	_, err = WriteSharded(ctx, dir, tensors, o)
	require.NoError(t, err)
}
