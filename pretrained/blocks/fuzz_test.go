package blocks_test

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/torchgo/torchgo/torch"
)

// Whatever rope_parameters say, they are refused or give as many frequencies as half a head has.
func FuzzRoPE(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"rope_type": "linear", "factor": 2.0}`, `{"type": "dynamic", "factor": 1e30}`, `{"rope_type": "yarn", "factor": null, "truncate": false}`,
		`{"rope_type": "yarn", "factor": 4, "beta_fast": 1e-30, "mscale": 1, "mscale_all_dim": 1e38, "original_max_position_embeddings": 1e-30}`,
		`{"rope_type": "longrope", "short_factor": [1, 2, 3, 4], "long_factor": [1e-40, 2, 3, 4], "original_max_position_embeddings": 2}`,
		`{"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}`, `{"rope_type": "proportional", "partial_rotary_factor": 0.3}`,
	} {
		f.Add(s, 8, 16, 20)
	}
	f.Fuzz(func(t *testing.T, text string, headDim, positions, length int) {
		var params map[string]any
		if json.Unmarshal([]byte(text), &params) != nil || headDim < 1 || headDim > 4096 || positions < 1 || length < 0 || length > 1<<40 {
			return
		}
		r, _, err := ropeCase{params, headDim, positions}.parse()
		if err != nil {
			return
		}
		if a := r.Attention(); math.IsNaN(a) || math.IsInf(a, 0) {
			t.Fatal(a)
		}
		for _, n := range []int{0, length} {
			var got int
			torch.Scope(func() { got = r.InvFreq(n).Numel() })
			if want := (r.Dim() + 1) / 2; got != want {
				t.Fatalf("%d frequencies, want %d", got, want)
			}
		}
	})
}
