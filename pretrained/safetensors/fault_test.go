package safetensors

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/atomicfile"
)

// folderCase is a checkpoint of a folder: all bytes of its tensors are the same.
type folderCase struct {
	name   string
	shards int // 0: no checkpoint
	fill   string
	config string
}

func (c folderCase) save(t *testing.T, dir string) error { return c.saveWith(t.Context(), dir) }

func (c folderCase) saveWith(ctx context.Context, dir string) error {
	var tensors []Source
	for i := range 6 {
		tensors = append(tensors, Source{fmt.Sprint("t", i), U8, []int{600}, Data([]byte(strings.Repeat(c.fill, 600)))})
	}
	_, err := WriteSharded(ctx, dir, tensors, ShardOptions{MaxShardBytes: int64(3600 / c.shards), Documents: []Document{
		{Name: "generation_config.json", Data: []byte(c.config + c.fill)},
		{Name: "config.json", Data: []byte(c.config), Pointing: func(weights string) []byte { return []byte(c.config + ` "` + weights + `"`) }},
	}})
	return err
}

// found reads the checkpoint in dir as a loader does, which follows config.json, or as one that knows
// nothing of that. It gives the config's text and the byte that all tensors are made of.
func found(t *testing.T, dir string, byConfig bool) string {
	path, err := find(dir)
	text := ""
	if byConfig {
		data, configErr := os.ReadFile(filepath.Join(dir, "config.json"))
		if configErr != nil {
			return ""
		}
		var weights string
		var points bool
		if text, weights, points = strings.Cut(string(data), ` "`); points {
			path, err = filepath.Join(dir, strings.TrimSuffix(weights, `"`)), nil
		}
	}
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}
	require.NoError(t, err)
	fill, n := "", 0
	for _, f := range openAll(t, path) {
		for _, info := range f.Tensors() {
			data := make([]byte, info.Bytes)
			require.NoError(t, f.ReadTensor(info.Name, data))
			if fill == "" {
				fill = string(data[:1])
			}
			require.Equal(t, strings.Repeat(fill, 600), string(data), "a mix of two checkpoints")
			n++
		}
	}
	require.Equal(t, 6, n)
	return text + fill
}

// transitions calls f for saves over folders of all kinds.
func transitions(t *testing.T, f func(t *testing.T, old, next folderCase)) {
	for _, old := range []folderCase{{"nothing", 0, "", ""}, {"one file", 1, "a", "A"}, {"three shards", 3, "a", "A"}} {
		for _, next := range []folderCase{
			{"one file", 1, "b", "B"}, {"three shards", 3, "b", "B"}, {"two shards", 2, "b", "B"},
			{"one file and the same config", 1, "b", "A"}, {"three shards and the same config", 3, "b", "A"},
		} {
			t.Run(old.name+" to "+next.name, func(t *testing.T) { f(t, old, next) })
		}
	}
}

// memoryDir is a folder in memory if the system has such, where syncing costs nothing.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "torchgo-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (c folderCase) folder(t *testing.T) string {
	dir := memoryDir(t)
	if c.shards > 0 {
		require.NoError(t, c.save(t, dir))
	}
	return dir
}

type event struct {
	op   atomicfile.Op
	path string
}

// watched saves and calls see before each operation on a file.
func (c folderCase) watched(t *testing.T, dir string, see func(n int, e event) error) (events []event, err error) {
	defer atomicfile.Intercept(func(op atomicfile.Op, path string) error {
		events = append(events, event{op, path})
		return see(len(events)-1, event{op, path})
	})()
	err = c.save(t, dir)
	return events, err
}

// Whenever a process is stopped, a loader finds the old checkpoint, then the new one, never another.
func TestAtEachPointOfASaveOneCheckpointIsFound(t *testing.T) {
	transitions(t, func(t *testing.T, old, next folderCase) {
		dir := old.folder(t)
		for _, byConfig := range []bool{true, false} {
			var seen []string
			see := func() {
				if s := found(t, dir, byConfig); len(seen) == 0 || seen[len(seen)-1] != s {
					seen = append(seen, s)
				}
			}
			_, err := next.watched(t, dir, func(int, event) error { see(); return nil })
			require.NoError(t, err)
			see()
			want := []string{old.config + old.fill, next.config + next.fill}
			if !byConfig {
				want = []string{old.fill, next.fill}
			}
			require.Equal(t, want, seen)
			dir = old.folder(t)
		}
	})
}

// Every operation of a save fails in turn, with each kind of error. Then the folder is as it was, or the save
// succeeded all the same, and no temporary file stays. If everything fails from then on, one of the two
// checkpoints is found.
func TestEveryFaultWhileSaving(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	transitions(t, func(t *testing.T, old, next folderCase) {
		dir := old.folder(t)
		before := snapshot(t, dir)
		events, err := next.watched(t, dir, func(int, event) error { return nil })
		require.NoError(t, err)
		complete := snapshot(t, dir)
		for n, e := range events {
			faults := []error{syscall.ENOSPC, syscall.EIO}
			if e.op == atomicfile.OpWrite {
				faults = append(faults, atomicfile.ErrShort)
			}
			for _, fault := range faults {
				dir := old.folder(t)
				_, err := next.watched(t, dir, func(i int, _ event) error {
					if i == n {
						return fault
					}
					return nil
				})
				if err == nil {
					require.Equal(t, complete, snapshot(t, dir), "%v: %v", e, fault)
					continue
				}
				if fault != atomicfile.ErrShort {
					require.ErrorIs(t, err, fault)
				}
				require.NotContains(t, err.Error(), ".save-", "a temporary name in an error")
				require.Equal(t, before, snapshot(t, dir), "%v: %v", e, fault)
			}
			dir := old.folder(t)
			_, err := next.watched(t, dir, func(i int, _ event) error {
				if i >= n {
					return syscall.EIO
				}
				return nil
			})
			require.ErrorIs(t, err, syscall.EIO)
			require.Contains(t, []string{old.config + old.fill, next.config + next.fill}, found(t, dir, true), "%v", e)
			require.NoError(t, next.save(t, dir))
			require.Equal(t, complete, snapshot(t, dir), "the next save cleans up")
		}
	})
}

// Who cancels before the first file has its name gets the folder as it was, who does so later the whole new checkpoint.
func TestCancelledAtEachPointOfASave(t *testing.T) {
	old, next := folderCase{"three shards", 3, "a", "A"}, folderCase{"two shards", 2, "b", "B"}
	dir := old.folder(t)
	before := snapshot(t, dir)
	events, err := next.watched(t, dir, func(int, event) error { return nil })
	require.NoError(t, err)
	complete := snapshot(t, dir)
	first := slices.IndexFunc(events, func(e event) bool { return e.op == atomicfile.OpRename })
	for at, e := range events {
		dir := old.folder(t)
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		restore := atomicfile.Intercept(func(atomicfile.Op, string) error {
			if n++; n > at {
				cancel()
			}
			return nil
		})
		err := next.saveWith(ctx, dir)
		restore()
		if at < first {
			require.ErrorIs(t, err, context.Canceled, "%v", e)
			require.Equal(t, before, snapshot(t, dir), "%v", e)
		} else {
			require.NoError(t, err, "%v", e)
			require.Equal(t, complete, snapshot(t, dir), "%v", e)
		}
	}
}

// Without hard links files are copied, and all is the same.
func TestSaveWithoutHardLinks(t *testing.T) {
	links := 0
	transitions(t, func(t *testing.T, old, next folderCase) {
		with, without := old.folder(t), old.folder(t)
		require.NoError(t, next.save(t, with))
		_, err := next.watched(t, without, func(_ int, e event) error {
			require.Contains(t, []string{old.config + old.fill, next.config + next.fill}, found(t, without, true))
			if e.op == atomicfile.OpLink {
				links++
				return syscall.EPERM
			}
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, snapshot(t, with), snapshot(t, without))
	})
	require.GreaterOrEqual(t, links, 20)
}

// A file's content is on the disk before the file has its name, all of the new checkpoint before anything of
// the old one goes, and each step before the next.
func TestOrderOfSyncs(t *testing.T) {
	transitions(t, func(t *testing.T, old, next folderCase) {
		dir := old.folder(t)
		events, err := next.watched(t, dir, func(int, event) error { return nil })
		require.NoError(t, err)
		written, dirty, renamed := map[string]bool{}, false, 0
		for _, e := range events {
			name := filepath.Base(e.path)
			switch e.op {
			case atomicfile.OpWrite:
				require.Zero(t, renamed, "all is written before the first rename")
				written[name] = true
			case atomicfile.OpSync:
				delete(written, name)
			case atomicfile.OpCreate, atomicfile.OpLink:
				dirty = true
			case atomicfile.OpSyncDir:
				dirty = false
			case atomicfile.OpRename:
				require.Empty(t, written, "%s is renamed before its content is on the disk", name)
				if renamed == 0 {
					require.False(t, dirty, "the folder was not synced before the first rename")
				}
				// Shards are many, and nobody finds them before the index; each other name is a step.
				if renamed > 0 && !strings.HasPrefix(name, "model-") {
					require.False(t, dirty, "%s is renamed before what came before is on the disk", name)
				}
				renamed++
				dirty = true
			case atomicfile.OpRemove:
				if !strings.HasPrefix(name, ".") && !strings.HasPrefix(name, "model-") {
					require.False(t, dirty, "%s is removed before what replaces it is on the disk", name)
				}
				if !strings.HasPrefix(name, ".") {
					dirty = true
				}
			}
		}
		require.NotZero(t, renamed)
		require.False(t, dirty, "the last step is on the disk")
	})
}
