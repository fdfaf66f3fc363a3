package pretrained

import (
	"encoding/binary"
	"math"

	"github.com/torchgo/torchgo/pretrained/gguf"
)

const ropeFreqs = "rope_freqs.weight"

// llama3 are the settings of RoPE that all Llamas of versions 3.1 to 3.3 have, but for the factor.
var llama3 = struct{ low, high, original float64 }{1, 4, 8192}

// frequencies adds the rope_scaling of type llama3 that a file has in another form: what each frequency is divided by. The
// factors of other settings, which the metadata do not tell, are left out, as transformers does with all, and a warning says so.
func frequencies(f *gguf.File, config map[string]any) (warnings []string, _ error) {
	t, ok := f.Tensor(ropeFreqs)
	if !ok || config["rope_scaling"] != nil {
		return nil, nil
	}
	const most = 1 << 12
	if len(t.Shape) == 1 && t.Shape[0] > 0 && t.Shape[0] <= most && t.Bytes == 4*t.Shape[0] {
		data := make([]byte, t.Bytes)
		if err := f.ReadTensor(ropeFreqs, data); err != nil {
			return nil, err
		}
		factors := make([]float64, t.Shape[0])
		for i := range factors {
			factors[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:])))
		}
		theta, _ := config["rope_theta"].(float64)
		if factor := factors[len(factors)-1]; isLlama3(factors, theta, factor) {
			config["rope_scaling"] = map[string]any{"rope_type": "llama3", "factor": factor, "low_freq_factor": llama3.low,
				"high_freq_factor": llama3.high, "original_max_position_embeddings": int64(llama3.original)}
			return nil, nil
		}
	}
	return []string{ropeFreqs + " is left out, as in transformers: give the model's rope_scaling with the config if it has one"}, nil
}

// isLlama3 tells factors of type llama3 from others. The i-th frequency of n is theta^(-i/n).
func isLlama3(factors []float64, theta, factor float64) bool {
	if !(factor > 1) || !(theta > 0) {
		return false
	}
	for i, got := range factors {
		turns := llama3.original / (2 * math.Pi) * math.Pow(theta, -float64(i)/float64(len(factors))) // within the original length
		smooth := min(max((turns-llama3.low)/(llama3.high-llama3.low), 0), 1)
		want := 1 / ((1-smooth)/factor + smooth)
		if !(math.Abs(got-want) <= 1e-5*want) {
			return false
		}
	}
	return true
}
