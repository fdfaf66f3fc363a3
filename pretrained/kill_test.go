package pretrained_test

import (
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

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
)

// The folder that the process saves into, and those that hold the checkpoints: it must not unpack its own, as it
// never gets to remove them.
const (
	killEnv     = "TORCHGO_TEST_SAVE_FOREVER"
	killFromEnv = "TORCHGO_TEST_SAVE_FROM"
)

// killSaves are checkpoints that a folder holds in turn: of different shapes, so that the config.json of one does
// not go with the weights of another, in one file and in shards, with names in common.
func killSaves(t testing.TB) (from []string, opts []safetensors.ShardOptions) {
	roots := filepath.SplitList(os.Getenv(killFromEnv))
	if len(roots) != 2 {
		roots = []string{testdata.Open(t, "models-bert"), testdata.Open(t, "models-llama")}
	}
	bert, llama := roots[0], roots[1]
	for _, c := range []struct {
		dir   string
		shard int64
	}{
		{filepath.Join(bert, "bert-mlm"), 0}, {filepath.Join(llama, "llama"), 40_000}, {filepath.Join(bert, "bert-qa"), 40_000},
		{filepath.Join(llama, "llama-tied-rope-llama3"), 0}, {filepath.Join(bert, "bert-seqcls"), 60_000},
	} {
		from = append(from, c.dir)
		opts = append(opts, safetensors.ShardOptions{MaxShardBytes: c.shard, Metadata: map[string]string{"format": "pt"}})
	}
	return from, opts
}

// TestSaveForever is the process that is killed.
func TestSaveForever(t *testing.T) {
	dir := os.Getenv(killEnv)
	if dir == "" {
		t.Skip("for TestThousandKills")
	}
	from, opts := killSaves(t)
	at := rand.IntN(len(from))
	fmt.Println("ready")
	for {
		at = (at + 1 + rand.IntN(len(from)-1)) % len(from)
		if err := pretrained.Rewrite(ctx, from[at], dir, opts[at]); err != nil {
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
	from, opts := killSaves(t)
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
		require.NoError(t, pretrained.Rewrite(ctx, from[0], dir, opts[0]))
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
			if err := pretrained.Rewrite(ctx, from[0], dir, opts[0]); err != nil {
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
	cmd.Env = append(os.Environ(), killEnv+"="+dir,
		killFromEnv+"="+filepath.Dir(from[0])+string(filepath.ListSeparator)+filepath.Dir(from[1]))
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
