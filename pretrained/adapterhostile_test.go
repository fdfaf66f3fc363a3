package pretrained_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// adapterCorpus are the hostile adapters, and the model that they are for.
func adapterCorpus(t testing.TB) (cases []testdata.HostileCase, base pretrained.Model) {
	cases = testdata.Hostile(t, "peft")
	require.Len(t, cases, 16)
	dir := filepath.Join(filepath.Dir(filepath.Dir(cases[0].Path)), "hf_dir", "hf_ok_single")
	base, _, err := pretrained.Load(ctx, dir, pretrained.Options{Strict: true})
	require.NoError(t, err)
	t.Cleanup(base.Close)
	return cases, base
}

// stateBytes are the contents of a model, without tensors that stay.
func stateBytes(m pretrained.Model) map[string]string {
	return torch.ScopeOf(func() map[string]string { return contents(m) })
}

// TestHostileAdapters: each is refused with its class, as strict loading does it, and leaves the model as it was.
func TestHostileAdapters(t *testing.T) {
	cases, m := adapterCorpus(t)
	before, live := stateBytes(m), torch.LiveTensors()
	fds, fdErr := os.ReadDir("/proc/self/fd")
	strict := pretrained.LoadAdapterOptions{Strict: true}
	for _, c := range cases {
		start := time.Now()
		_, err := m.LoadAdapter(ctx, c.Path, strict)
		require.Less(t, time.Since(start), 2*time.Second, c.ID)
		if c.Expected == "ok" {
			require.NoError(t, err, c.ID)
			state, err := m.GetAdapterStateDict("")
			require.NoError(t, err)
			require.Len(t, state, len(c.Tensors))
			for name, want := range c.Tensors {
				got := state[strings.TrimPrefix(name, "base_model.model.")]
				sum := sha256.Sum256(got.Bytes())
				require.Equal(t, want.SHA256, hex.EncodeToString(sum[:16]), "%s: %s", c.ID, name)
				require.Equal(t, want.Shape, got.Shape())
			}
			require.NoError(t, m.UnloadAdapters())
		} else {
			require.ErrorIs(t, err, fileerr.Class(c.ErrorClass), "%s (%s)", c.ID, c.Wrong)
			require.Contains(t, err.Error(), filepath.Base(c.Path), c.ID)
			require.NotContains(t, err.Error(), "\n", c.ID)
			t.Log(strings.ReplaceAll(err.Error(), filepath.Dir(c.Path), "…"))
		}
		require.Equal(t, before, stateBytes(m), c.ID)
		require.Empty(t, m.ActiveAdapters())
	}
	require.NoDirExists(t, filepath.Join(os.TempDir(), "hostile_marker"), "made by code in a pickle")
	require.Equal(t, live, torch.LiveTensors())
	if after, err := os.ReadDir("/proc/self/fd"); err == nil && fdErr == nil {
		require.Len(t, after, len(fds))
	}
}

// TestHostileAdaptersInPlaceOfModels: from_pretrained of an adapter's folder says the same. Their base model is named
// relative to the working directory.
func TestHostileAdaptersInPlaceOfModels(t *testing.T) {
	cases := testdata.Hostile(t, "peft")
	t.Chdir(cases[0].Path) // "../../hf_dir/hf_ok_single" is below it
	live := torch.LiveTensors()
	for _, c := range cases {
		m, _, err := pretrained.Load(ctx, c.Path, pretrained.Options{Strict: true})
		if c.Expected == "ok" {
			require.NoError(t, err, c.ID)
			m.Close()
			continue
		}
		require.ErrorIs(t, err, fileerr.Class(c.ErrorClass), "%s (%s)", c.ID, c.Wrong)
		require.Contains(t, err.Error(), filepath.Base(c.Path), c.ID)
	}
	require.Equal(t, live, torch.LiveTensors())
}

// smallAdapter writes an adapter for the model of the corpus: tensors are zeros.
func smallAdapter(t testing.TB, config string, tensors map[string][]int) string {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "adapter_config.json"), []byte(config), 0o600))
	writeZeros(t, filepath.Join(dir, "adapter_model.safetensors"), tensors)
	return dir
}

func writeZeros(t testing.TB, path string, tensors map[string][]int) {
	header, at := map[string]any{}, 0
	for name, shape := range tensors {
		n := 4
		for _, d := range shape {
			n *= d
		}
		header[name] = map[string]any{"dtype": "F32", "shape": shape, "data_offsets": []int{at, at + n}}
		at += n
	}
	text, err := json.Marshal(header)
	require.NoError(t, err)
	file := append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...)
	require.NoError(t, os.WriteFile(path, append(file, make([]byte, at)...), 0o600))
}

const q = "base_model.model.model.layers.0.self_attn.q_proj."

// TestAdapterFilesThatDoNotFit: what is wrong with names and shapes, strict and not.
func TestAdapterFilesThatDoNotFit(t *testing.T) {
	_, m := adapterCorpus(t)
	const config = `{"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}`
	pair := func(more ...any) map[string][]int {
		tensors := map[string][]int{q + "lora_A.weight": {2, 8}, q + "lora_B.weight": {8, 2}}
		for i := 0; i < len(more); i += 2 {
			if tensors[more[i].(string)] = nil; more[i+1] != nil {
				tensors[more[i].(string)] = more[i+1].([]int)
			} else {
				delete(tensors, more[i].(string))
			}
		}
		return tensors
	}
	for name, c := range map[string]struct {
		tensors             map[string][]int
		class               error // always
		strict              error
		missing, unexpected []string
	}{
		"A without B":      {tensors: pair(q+"lora_B.weight", nil), strict: pretrained.ErrMissingTensor, missing: []string{"model.layers.0.self_attn.q_proj.lora_B.weight"}},
		"B without A":      {tensors: pair(q+"lora_A.weight", nil), strict: pretrained.ErrMissingTensor, missing: []string{"model.layers.0.self_attn.q_proj.lora_A.weight"}},
		"nothing":          {tensors: map[string][]int{}, strict: pretrained.ErrMissingTensor, missing: []string{"model.layers.0.self_attn.q_proj.lora_A.weight", "model.layers.0.self_attn.q_proj.lora_B.weight"}},
		"another layer":    {tensors: pair(strings.Replace(q, ".0.", ".1.", 1)+"lora_A.weight", []int{2, 8}), strict: pretrained.ErrConflict, unexpected: []string{"model.layers.1.self_attn.q_proj.lora_A.weight"}},
		"another kind":     {tensors: pair(q+"ia3_l", []int{8, 1}), strict: pretrained.ErrConflict, unexpected: []string{"model.layers.0.self_attn.q_proj.ia3_l"}},
		"a magnitude":      {tensors: pair(q+"lora_magnitude_vector", []int{8}), strict: pretrained.ErrConflict, unexpected: []string{"model.layers.0.self_attn.q_proj.lora_magnitude_vector"}},
		"rank of A":        {tensors: pair(q+"lora_A.weight", []int{3, 8}), class: pretrained.ErrSizeMismatch},
		"both ranks":       {tensors: pair(q+"lora_A.weight", []int{3, 8}, q+"lora_B.weight", []int{8, 3}), class: pretrained.ErrSizeMismatch},
		"inputs":           {tensors: pair(q+"lora_A.weight", []int{2, 9}), class: pretrained.ErrSizeMismatch},
		"dimensions":       {tensors: pair(q+"lora_A.weight", []int{16}), class: pretrained.ErrSizeMismatch},
		"no elements":      {tensors: pair(q+"lora_A.weight", []int{0, 8}), class: pretrained.ErrSizeMismatch},
		"prefix twice":     {tensors: pair(strings.TrimPrefix(q, "base_model.model.")+"lora_A.weight", []int{2, 8}), class: pretrained.ErrConflict},
		"without a prefix": {tensors: map[string][]int{"model.layers.0.self_attn.q_proj.lora_A.weight": {2, 8}, "model.layers.0.self_attn.q_proj.lora_B.weight": {8, 2}}},
		"the model's own":  {tensors: pair("base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight", []int{8, 8}), strict: pretrained.ErrConflict, unexpected: []string{"model.layers.0.self_attn.q_proj.base_layer.weight"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := smallAdapter(t, config, c.tensors)
			before := stateBytes(m)
			for _, strict := range []bool{true, false} {
				r, err := m.LoadAdapter(ctx, dir, pretrained.LoadAdapterOptions{Strict: strict})
				class := c.class
				if strict && class == nil {
					class = c.strict
				}
				if class != nil {
					require.ErrorIs(t, err, class)
					require.Contains(t, err.Error(), filepath.Base(dir))
				} else {
					require.NoError(t, err)
					require.ElementsMatch(t, c.missing, r.MissingKeys)
					require.ElementsMatch(t, c.unexpected, r.UnexpectedKeys)
					require.NoError(t, m.UnloadAdapters())
				}
				require.Equal(t, before, stateBytes(m))
			}
		})
	}
}

// TestNoAllocationByConfigAlone: a rank that no tensor bears out takes no memory.
func TestNoAllocationByConfigAlone(t *testing.T) {
	_, m := adapterCorpus(t)
	var before, after syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &before))
	for _, tensors := range []map[string][]int{nil, {q + "lora_A.weight": {2, 8}}, {q + "lora_A.weight": {2, 8}, q + "lora_B.weight": {8, 2}}} {
		for _, strict := range []bool{true, false} {
			dir := smallAdapter(t, `{"peft_type": "LORA", "r": 16777216, "target_modules": "all-linear"}`, tensors)
			start := time.Now()
			_, err := m.LoadAdapter(ctx, dir, pretrained.LoadAdapterOptions{Strict: strict})
			require.Error(t, err)
			require.Less(t, time.Since(start), 5*time.Second)
		}
	}
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &after))
	require.Less(t, after.Maxrss-before.Maxrss, int64(200<<10), "KiB; an adapter of that rank has 4 GB")
}

// TestSpecialAdapterFiles: what is no regular file neither blocks nor is followed to a device; a folder's adapter has
// its files in it.
func TestSpecialAdapterFiles(t *testing.T) {
	cases, m := adapterCorpus(t)
	good := cases[slices.IndexFunc(cases, func(c testdata.HostileCase) bool { return c.ID == "peft_ok_lora" })].Path
	for _, name := range []string{"adapter_config.json", "adapter_model.safetensors"} {
		for what, make := range map[string]func(path string) error{
			"FIFO":   func(path string) error { return syscall.Mkfifo(path, 0o600) },
			"folder": func(path string) error { return os.Mkdir(path, 0o700) },
			"device": func(path string) error { return os.Symlink("/dev/zero", path) },
			"loop":   func(path string) error { return os.Symlink(filepath.Base(path), path) },
		} {
			dir := t.TempDir()
			require.NoError(t, os.CopyFS(dir, os.DirFS(good)))
			require.NoError(t, os.Remove(filepath.Join(dir, name)))
			require.NoError(t, make(filepath.Join(dir, name)))
			start := time.Now()
			_, err := m.LoadAdapter(ctx, dir)
			require.Error(t, err, "%s %s", name, what)
			require.Contains(t, err.Error(), name)
			if what != "loop" {
				require.ErrorIs(t, err, pretrained.ErrNotRegular, "%s %s", name, what)
			}
			require.Less(t, time.Since(start), 5*time.Second)
		}
	}
	_, err := m.LoadAdapter(ctx, filepath.Dir(good), pretrained.LoadAdapterOptions{Subfolder: "../peft/peft_ok_lora"})
	require.ErrorIs(t, err, pretrained.ErrPath)
	_, err = m.LoadAdapter(ctx, filepath.Dir(good), pretrained.LoadAdapterOptions{Subfolder: "peft_ok_lora"})
	require.NoError(t, err)
	require.NoError(t, m.UnloadAdapters())
}

// TestDamagedAdapters: cut at any byte, or with bytes changed, an adapter's files are refused, or have tensors of the
// same shapes.
func TestDamagedAdapters(t *testing.T) {
	if testing.Short() {
		t.Skip("3,000 loads")
	}
	cases, m := adapterCorpus(t)
	before, live := stateBytes(m), torch.LiveTensors()
	good := cases[slices.IndexFunc(cases, func(c testdata.HostileCase) bool { return c.ID == "peft_ok_lora" })].Path
	want := map[string][]int{"model.layers.0.self_attn.q_proj.lora_A.weight": {2, 8}, "model.layers.0.self_attn.q_proj.lora_B.weight": {8, 2}}
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(good)))
	loaded := 0
	check := func(name string, data []byte, what string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
		_, err := m.LoadAdapter(ctx, dir, pretrained.LoadAdapterOptions{Strict: true})
		if err != nil {
			require.Contains(t, err.Error(), filepath.Base(dir), what)
			require.NotContains(t, err.Error(), "\n", what)
			return
		}
		loaded++
		state, err := m.GetAdapterStateDict("")
		require.NoError(t, err)
		for name, x := range state {
			if bytes.Contains([]byte(what), []byte("weights")) {
				require.Equal(t, want[name], x.Shape(), what)
			}
		}
		require.NoError(t, m.UnloadAdapters())
	}
	r := rand.New(rand.NewPCG(1, 2))
	for name, what := range map[string]string{"adapter_config.json": "config", "adapter_model.safetensors": "weights"} {
		data, err := os.ReadFile(filepath.Join(good, name))
		require.NoError(t, err)
		for n := range data {
			check(name, data[:n], fmt.Sprintf("%s cut at %d", what, n))
		}
		for range 1000 {
			flipped := bytes.Clone(data)
			i, bit := r.IntN(len(data)), r.IntN(8)
			flipped[i] ^= 1 << bit
			check(name, flipped, fmt.Sprintf("%s with bit %d of byte %d changed", what, bit, i))
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	require.Greater(t, loaded, 100)
	require.Equal(t, before, stateBytes(m))
	require.Equal(t, live, torch.LiveTensors())
}

// TestAdapterInABin: an adapter that peft saved with torch.save.
func TestAdapterInABin(t *testing.T) {
	c := adapterNamed(t, "llama-lora")
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Join(testdata.Open(t, "peft"), "bin"))))
	m, _ := load(t, baseDir(t, c.Base), pretrained.Options{Attn: nn.Eager})
	_, err := m.LoadAdapter(ctx, dir, pretrained.LoadAdapterOptions{UseSafetensors: torch.Some(true)})
	require.ErrorIs(t, err, pretrained.ErrMissingShard)
	_, err = m.LoadAdapter(ctx, dir, pretrained.LoadAdapterOptions{Strict: true})
	require.NoError(t, err)
	require.LessOrEqual(t, far(t, c.want["logits"], logits(t, m, c.Base)), onOtherCPUs)
	require.NoError(t, m.UnloadAdapters())

	// The name of a safetensors file is a promise: what takes it for safe must not get a pickle.
	require.NoError(t, os.Rename(filepath.Join(dir, "adapter_model.bin"), filepath.Join(dir, "adapter_model.safetensors")))
	_, err = m.LoadAdapter(ctx, dir)
	require.Error(t, err)
	require.Contains(t, err.Error(), "adapter_model.safetensors")
	require.Empty(t, m.ActiveAdapters())
}
