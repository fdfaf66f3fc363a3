package pretrained_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// situation is what tools/loaderfuzz recorded of a checkpoint that was changed at random.
type situation struct {
	What    []string
	Class   string
	Options struct {
		DType      string
		Ignore     bool `json:"ignore_mismatched_sizes"`
		Config     json.RawMessage
		KeyMapping map[string]string `json:"key_mapping"`
		Variant    string
	}
	Save struct {
		Original bool   `json:"save_original_format"`
		Shard    string `json:"max_shard_size"`
	}
	Error  string
	Report map[string]json.RawMessage
	Ties   [][]string
	State  map[string]json.RawMessage // name: [dtype, shape, digest]
	Saved  map[string]json.RawMessage // file: text, or {name: [dtype, digest]}
}

// Random situations are loaded, reported and saved as transformers does.
func TestRandomSituations(t *testing.T) {
	base := testdata.Open(t, "loaderfuzz")
	entries, err := os.ReadDir(base)
	require.NoError(t, err)
	require.NotEmpty(t, entries)
	for _, e := range entries {
		t.Run(e.Name(), func(t *testing.T) {
			dir := filepath.Join(base, e.Name())
			data, err := os.ReadFile(filepath.Join(dir, "case.json"))
			require.NoError(t, err)
			var c situation
			require.NoError(t, json.Unmarshal(data, &c))
			t.Log(c.Class, c.Options.DType, string(c.Options.Config), c.Options.KeyMapping, strings.Join(c.What, ", "))
			opts := pretrained.Options{Class: c.Class, IgnoreMismatchedSizes: c.Options.Ignore, Variant: c.Options.Variant}
			if c.Options.Config != nil {
				numbers := json.NewDecoder(bytes.NewReader(c.Options.Config))
				numbers.UseNumber()
				require.NoError(t, numbers.Decode(&opts.Config))
			}
			if c.Options.DType != "" {
				opts.DType, err = torch.ParseDType(c.Options.DType)
				require.NoError(t, err)
			}
			for pattern, replacement := range c.Options.KeyMapping { // there is one
				opts.KeyMapping = append(opts.KeyMapping, pretrained.KeyRule{Pattern: pattern, Replacement: replacement})
			}
			m, r, err := pretrained.Load(ctx, dir, opts)
			if c.Error != "" {
				require.Error(t, err, c.Error)
				return
			}
			require.NoError(t, err)
			defer m.Close()
			checkSituation(t, &c, m, r)
			checkSavedSituation(t, &c, m)
		})
	}
}

func checkSituation(t *testing.T, c *situation, m pretrained.Model, r *pretrained.Report) {
	var got map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(r.JSON(), &got))
	for key, want := range c.Report {
		require.JSONEq(t, string(want), string(got[key]), key)
	}
	groups := map[string][]string{}
	for target, source := range r.TiedKeys {
		groups[source] = append(groups[source], target)
	}
	ties := [][]string{}
	for source, targets := range groups {
		ties = append(ties, slices.Sorted(slices.Values(append(targets, source))))
	}
	require.ElementsMatch(t, c.Ties, ties)
	state := nn.StateDict(m)
	names := []string{}
	for name, tensor := range state {
		names = append(names, name)
		require.Contains(t, c.State, name)
		checkTensor(t, name, c.State[name], tensor)
	}
	require.ElementsMatch(t, slices.Collect(maps.Keys(c.State)), names)
}

// checkTensor compares with [dtype, shape, digest], in which a digest that is empty is of drawn values.
func checkTensor(t *testing.T, name string, recorded json.RawMessage, tensor *torch.Tensor) {
	var dtype, digest string
	shape := []int{}
	require.NoError(t, json.Unmarshal(recorded, &[]any{&dtype, &shape, &digest}))
	require.Equal(t, dtype, tensor.DType().String(), name)
	require.Equal(t, shape, append([]int{}, tensor.Shape()...), name)
	if digest != "" {
		sum := sha256.Sum256(tensor.Contiguous().Bytes())
		require.Equal(t, digest, hex.EncodeToString(sum[:])[:len(digest)], name)
	}
}

func checkSavedSituation(t *testing.T, c *situation, m pretrained.Model) {
	dir := filepath.Join(t.TempDir(), "saved")
	require.NoError(t, pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{MaxShardSize: c.Save.Shard, SaveOriginalFormat: torch.Some(c.Save.Original)}))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var files []string
	for _, e := range entries {
		files = append(files, e.Name())
	}
	require.ElementsMatch(t, slices.Collect(maps.Keys(c.Saved)), files)
	for file, recorded := range c.Saved {
		path := filepath.Join(dir, file)
		if strings.HasSuffix(file, ".json") {
			var text string
			require.NoError(t, json.Unmarshal(recorded, &text))
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, text, string(data), file)
			continue
		}
		var want map[string][2]string
		require.NoError(t, json.Unmarshal(recorded, &want))
		f, err := safetensors.Open(path)
		require.NoError(t, err)
		defer f.Close()
		require.Len(t, f.Tensors(), len(want), file)
		for _, info := range f.Tensors() {
			w := want[info.Name]
			dtype, err := pretrained.StrToTorchDType(info.DType.String())
			require.NoError(t, err)
			require.Equal(t, w[0], dtype.String(), "%s in %s", info.Name, file)
			if w[1] == "" {
				continue
			}
			data := make([]byte, info.Bytes)
			require.NoError(t, f.ReadTensor(info.Name, data))
			sum := sha256.Sum256(data)
			require.Equal(t, w[1], hex.EncodeToString(sum[:])[:len(w[1])], info.Name)
		}
	}
}
