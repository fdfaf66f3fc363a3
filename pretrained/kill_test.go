package pretrained_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
)

const killEnv = "TORCHGO_TEST_SAVE_FOREVER"

// killShards are the sizes of shards that the checkpoints of killSources are saved in.
var killShards = []int64{0, 40_000, 40_000, 0, 60_000, 60_000}

// killSources are checkpoints that a folder holds in turn: of different shapes, so that the config.json of one
// does not go with the weights of another, in one file and in shards, with names in common; the last two with
// the same config.json and shards.
func killSources(t *testing.T) []string {
	bert, llama := testdata.Open(t, "models-bert"), testdata.Open(t, "models-llama")
	last := filepath.Join(bert, "bert-seqcls")
	other := t.TempDir()
	m, _ := load(t, last, pretrained.Options{})
	trained(t, m)
	require.NoError(t, pretrained.SavePretrained(ctx, m, other, pretrained.SaveOptions{}))
	return []string{filepath.Join(bert, "bert-mlm"), filepath.Join(llama, "llama"), filepath.Join(bert, "bert-qa"),
		filepath.Join(llama, "llama-tied-rope-llama3"), last, other}
}

// rewrite saves one of them in a folder.
func rewrite(ctx context.Context, from []string, n int, dir string) error {
	return pretrained.Rewrite(ctx, from[n], dir, safetensors.ShardOptions{MaxShardBytes: killShards[n], Metadata: map[string]string{"format": "pt"}})
}

// TestSaveForever is the process that is killed.
func TestSaveForever(t *testing.T) {
	args := filepath.SplitList(os.Getenv(killEnv))
	if len(args) == 0 {
		t.Skip("for TestThousandKills")
	}
	dir, from := args[0], args[1:]
	at := rand.IntN(len(from))
	fmt.Println("ready")
	for {
		if at = (at + 1 + rand.IntN(len(from)-1)) % len(from); rand.IntN(3) == 0 {
			at = len(from) - 1 - rand.IntN(2)
		}
		if err := rewrite(ctx, from, at, dir); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
	}
}

// A process that saves one checkpoint over another is killed, 1,000 times at random moments. Each time the
// folder loads, strictly, and all its tensors are those of one checkpoint. What the process left is no more
// than one save's, and the next save removes it.
func TestThousandKills(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	from := killSources(t)
	var want []map[string]string
	for _, dir := range from {
		want = append(want, loadedDigests(t, dir))
	}
	const folders, kills = 4, 1000
	const largest = 120_000 // bytes of a save
	var mu sync.Mutex
	outcomes := map[string]int{}
	var wg sync.WaitGroup
	for range folders {
		dir := t.TempDir()
		require.NoError(t, rewrite(ctx, from, 0, dir))
		wg.Go(func() {
			for i := range kills / folders {
				if !killOne(t, dir, from) {
					return
				}
				m, _, err := pretrained.Load(ctx, dir, pretrained.Options{Strict: true})
				if err != nil {
					t.Errorf("kill %d: %v", i, err)
					return
				}
				got := digestsOf(m)
				m.Close()
				is := -1
				for n := range want {
					if len(got) == len(want[n]) && sameDigests(got, want[n]) {
						is = n
					}
				}
				if is < 0 {
					t.Errorf("kill %d: a mix of checkpoints", i)
					return
				}
				state, strays := leftovers(t, dir)
				if strays > largest {
					t.Errorf("kill %d: %d bytes are left, more than of a save", i, strays)
				}
				mu.Lock()
				outcomes[fmt.Sprint("found ", is)]++
				outcomes[state]++
				mu.Unlock()
			}
			if err := rewrite(ctx, from, 0, dir); err != nil {
				t.Error(err)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
				t.Errorf("%s stays after the next save", left)
			}
		})
	}
	wg.Wait()
	t.Log(outcomes)
	if !t.Failed() {
		for n := range from {
			require.Greater(t, outcomes[fmt.Sprint("found ", n)], kills/50)
		}
		require.Greater(t, outcomes["killed before the switch"], kills/10)
		require.Greater(t, outcomes["killed after the switch"], kills/100)
	}
}

// killOne runs the saving process and kills it in one of its first saves.
func killOne(t *testing.T, dir string, from []string) bool {
	cmd := exec.Command(os.Args[0], "-test.run=^TestSaveForever$")
	cmd.Env = append(os.Environ(), killEnv+"="+strings.Join(append([]string{dir}, from...), string(filepath.ListSeparator)))
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Error(err)
		return false
	}
	line := make([]byte, 6)
	_, err = io.ReadFull(out, line)
	time.Sleep(time.Duration(rand.Int64N(int64(60 * time.Millisecond))))
	_ = cmd.Process.Kill()
	rest, _ := io.ReadAll(out)
	_ = cmd.Wait()
	if err != nil || string(line) != "ready\n" || len(rest) > 0 {
		t.Errorf("the saving process said %q%q (%v)", line, rest, err)
		return false
	}
	return true
}

// leftovers tells when a save was killed, and how many bytes there are of files that no reader is sent to.
func leftovers(t *testing.T, dir string) (state string, strays int64) {
	var text strings.Builder
	documents, _ := filepath.Glob(filepath.Join(dir, "*.json"))
	for _, d := range documents {
		data, err := os.ReadFile(d)
		if err != nil {
			t.Error(err)
		}
		text.Write(data)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	state = "killed between saves"
	var seen, temps []os.FileInfo
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Error(err)
			continue
		}
		switch save, temp := strings.CutPrefix(e.Name(), ".save-"); {
		case !temp:
			seen = append(seen, info)
		case strings.Contains(text.String(), save[:len("0123456789abcdef-")]):
			seen, state = append(seen, info), "killed after the switch"
		default:
			temps = append(temps, info)
		}
	}
	if state == "killed between saves" && len(temps) > 0 {
		state = "killed before the switch"
	}
	for _, info := range temps { // other names of the same files take no room
		if !slices.ContainsFunc(seen, func(other os.FileInfo) bool { return os.SameFile(info, other) }) {
			seen, strays = append(seen, info), strays+info.Size()
		}
	}
	return state, strays
}

func loadedDigests(t *testing.T, dir string) map[string]string {
	m, _ := load(t, dir, pretrained.Options{Strict: true})
	return digestsOf(m)
}

func digestsOf(m pretrained.Model) map[string]string {
	digests := map[string]string{}
	torch.Scope(func() {
		for name, x := range state(m) {
			digests[name] = fmt.Sprint(x.Shape(), string(x.Bytes()))
		}
	})
	return digests
}

func sameDigests(a, b map[string]string) bool {
	for name, x := range a {
		if b[name] != x {
			return false
		}
	}
	return true
}

// Who loads while others save gets one checkpoint, too.
func TestLoadWhileOthersSave(t *testing.T) {
	from := killSources(t)
	var want []map[string]string
	for _, dir := range from {
		want = append(want, loadedDigests(t, dir))
	}
	dir := t.TempDir()
	require.NoError(t, rewrite(ctx, from, 0, dir))
	run, stop := context.WithCancel(ctx)
	var g errgroup.Group
	for start := range 2 {
		g.Go(func() error {
			for i := start; run.Err() == nil; i++ {
				if err := rewrite(run, from, i%len(from), dir); err != nil && run.Err() == nil {
					return err
				}
			}
			return nil
		})
	}
	found := map[int]int{}
	for i := range 400 {
		m, _, err := pretrained.Load(ctx, dir, pretrained.Options{Strict: true})
		require.NoError(t, err, "load %d", i)
		got := digestsOf(m)
		m.Close()
		is := slices.IndexFunc(want, func(w map[string]string) bool { return len(w) == len(got) && sameDigests(w, got) })
		require.GreaterOrEqual(t, is, 0, "load %d: a mix of checkpoints", i)
		found[is]++
	}
	stop()
	require.NoError(t, g.Wait())
	t.Log(found)
	require.Greater(t, len(found), 1)
}
