package peft_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/peft"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// FuzzAdapter: no config and no weights file does anything but load or be refused; what was loaded is saved, and its
// config reads the same.
func FuzzAdapter(f *testing.F) {
	cases := testdata.Hostile(f, "peft")
	m, _, err := pretrained.Load(f.Context(), filepath.Join(cases[0].Path, "../../hf_dir/hf_ok_single"), pretrained.Options{Strict: true})
	require.NoError(f, err)
	f.Cleanup(m.Close)
	for _, c := range cases {
		config, _ := os.ReadFile(filepath.Join(c.Path, "adapter_config.json"))
		weights, _ := os.ReadFile(filepath.Join(c.Path, "adapter_model.safetensors"))
		f.Add(config, weights)
	}
	for _, config := range []string{
		`{"peft_type": "IA3", "target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]}`,
		`{"peft_type": "LORA", "use_dora": true, "target_modules": "all-linear", "rank_pattern": {"^a.*": 3}, "bias": "all", "modules_to_save": ["norm"]}`,
		`{"peft_type": "LORA", "target_modules": ["embed_tokens"], "layers_to_transform": 0, "layers_pattern": ["layers"], "lora_bias": true}`,
	} {
		f.Add([]byte(config), []byte{})
	}
	contents := func() map[string]string {
		return torch.ScopeOf(func() map[string]string {
			out := map[string]string{}
			for name, x := range nn.StateDict(m) {
				out[name] = string(x.Detach().Bytes())
			}
			return out
		})
	}
	before, live := contents(), torch.LiveTensors()
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, config, weights []byte) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "adapter_config.json"), config, 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "adapter_model.safetensors"), weights, 0o600))
		for _, strict := range []bool{true, false} {
			_, err := m.LoadAdapter(t.Context(), dir, pretrained.LoadAdapterOptions{Strict: strict})
			switch {
			case err != nil:
				require.NotContains(t, err.Error(), "\n")
			case !strict:
				require.NoError(t, m.UnloadAdapters())
			default:
				out := t.TempDir()
				require.NoError(t, pretrained.SavePretrained(t.Context(), m, out, pretrained.SaveOptions{}))
				written, err := peft.ReadConfig(out)
				require.NoError(t, err)
				require.Equal(t, string(m.PeftConfig()["default"].JSON()), string(written.JSON()))
				require.NoError(t, m.UnloadAdapters())
			}
			require.Empty(t, m.ActiveAdapters())
		}
		require.Equal(t, before, contents())
		require.Equal(t, live, torch.LiveTensors())
		for _, p := range nn.NamedParameters(m) {
			require.True(t, p.IsLeaf())
		}
	})
}
