package sentence

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	_ "github.com/torchgo/torchgo/pretrained/models"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
)

var ctx = context.Background()

// minilm is the directory of all-MiniLM-L6-v2: TORCHGO_TEST_MINILM, or where `make demo` puts it.
func minilm(t testing.TB) string {
	if dir := os.Getenv("TORCHGO_TEST_MINILM"); dir != "" {
		return dir
	}
	found, err := filepath.Glob(filepath.Join("..", "..", "build", "models", "*", "modules.json"))
	require.NoError(t, err)
	if len(found) == 0 {
		t.Skip("all-MiniLM-L6-v2 is not here: `make demo` fetches it, or set TORCHGO_TEST_MINILM to its directory")
	}
	return filepath.Dir(found[0])
}

func TestMiniLM(t *testing.T) {
	e, err := Load(ctx, minilm(t), Options{Options: pretrained.Options{Strict: true}})
	require.NoError(t, err)
	defer e.Close()
	require.Equal(t, []Pooling{Mean}, e.Pooling)
	require.True(t, e.Normalize)
	require.Equal(t, 256, e.MaxSeqLength)

	dir := testdata.Open(t, "minilm-embeddings")
	data, err := os.ReadFile(filepath.Join(dir, "sentences.json"))
	require.NoError(t, err)
	var sentences []string
	require.NoError(t, json.Unmarshal(data, &sentences))
	f, err := safetensors.Open(filepath.Join(dir, "embeddings.safetensors"))
	require.NoError(t, err)
	defer f.Close()
	info, ok := f.Tensor("embeddings")
	require.True(t, ok)
	require.Equal(t, []int{len(sentences), 384}, info.Shape)
	want := make([]float32, info.Numel())
	require.NoError(t, f.ReadTensor("embeddings", unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(want))), info.Bytes)))

	live, calls := torch.LiveTensors(), 0
	got, err := e.Encode(ctx, sentences, EncodeOptions{Progress: func(done, total int) {
		calls++
		require.LessOrEqual(t, done, total)
	}})
	require.NoError(t, err)
	require.Equal(t, live, torch.LiveTensors())
	require.Equal(t, (len(sentences)+31)/32, calls)
	worst := 0.0
	for i, row := range got {
		require.Len(t, row, 384)
		for j, v := range row {
			worst = max(worst, math.Abs(float64(v)-float64(want[i*384+j])))
		}
	}
	t.Logf("%d sentences, largest difference %.2g", len(sentences), worst)
	require.Less(t, worst, 1e-5)

	canceled, cancel := context.WithCancel(ctx)
	cancel()
	_, err = e.Encode(canceled, sentences)
	require.ErrorIs(t, err, context.Canceled)
	none, err := e.Encode(ctx, nil)
	require.NoError(t, err)
	require.Empty(t, none)
}

// pooled evaluates the definitions on one row of x with n tokens, in float64.
func pooled(p Pooling, x [][]float64) []float64 {
	c, n := len(x[0]), len(x)
	out := make([]float64, c)
	for j := range c {
		var sum, weighted, weights float64
		best := math.Inf(-1)
		for i := range n {
			sum += x[i][j]
			weighted += float64(i+1) * x[i][j]
			weights += float64(i + 1)
			best = math.Max(best, x[i][j])
		}
		out[j] = map[Pooling]float64{CLS: x[0][j], Max: best, Mean: sum / float64(n), MeanSqrtLen: sum / math.Sqrt(float64(n)),
			WeightedMean: weighted / weights, LastToken: x[n-1][j]}[p]
	}
	return out
}

func TestPooling(t *testing.T) {
	const B, T, C = 3, 4, 5
	lengths := []int{4, 1, 2}
	x := make([]float32, B*T*C)
	mask := make([]int64, B*T)
	for i := range x {
		x[i] = float32((i*7919)%23)/8 - 2
	}
	for b, n := range lengths {
		for i := range n {
			mask[b*T+i] = 1
		}
	}
	all := []Pooling{CLS, Max, Mean, MeanSqrtLen, WeightedMean, LastToken}
	require.Len(t, poolings, len(all))
	for _, e := range []*Encoder{{Pooling: all}, {Pooling: all, Normalize: true}} {
		y := torch.ToSlice[float32](e.pool(torch.FromSlice(x, B, T, C), torch.FromSlice(mask, B, T)))
		require.Len(t, y, B*len(all)*C)
		for b, n := range lengths {
			rows := make([][]float64, n)
			for i := range rows {
				for j := range C {
					rows[i] = append(rows[i], float64(x[(b*T+i)*C+j]))
				}
			}
			var want []float64
			for _, p := range all {
				want = append(want, pooled(p, rows)...)
			}
			if e.Normalize {
				var squares float64
				for _, v := range want {
					squares += v * v
				}
				for i := range want {
					want[i] /= math.Sqrt(squares)
				}
			}
			for i, v := range want {
				require.InDelta(t, v, y[b*len(want)+i], 1e-5, "row %d, value %d", b, i)
			}
		}
	}
}

func TestModules(t *testing.T) {
	const transformer = `{"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"}`
	const pooling = `{"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}`
	write := func(dir, name, text string) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	for name, c := range map[string]struct {
		modules, pooling, bert string
		want                   Encoder
		err                    string
	}{
		"plain": {modules: "[" + transformer + "," + pooling + "]", pooling: `{"pooling_mode_cls_token": true}`,
			want: Encoder{Pooling: []Pooling{CLS}}},
		"all": {modules: "[" + transformer + "," + pooling + `, {"path": "2_Normalize", "type": "x.Normalize"}]`, bert: `{"max_seq_length": 128, "do_lower_case": true}`,
			pooling: `{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true, "pooling_mode_max_tokens": false, "pooling_mode_lasttoken": true}`,
			want:    Encoder{Pooling: []Pooling{CLS, Mean, LastToken}, Normalize: true, MaxSeqLength: 128, lowercase: true}},
		"by name":      {modules: "[" + transformer + "," + pooling + "]", pooling: `{"pooling_mode": "weightedmean"}`, want: Encoder{Pooling: []Pooling{WeightedMean}}},
		"no modules":   {want: Encoder{Pooling: []Pooling{Mean}}},
		"dense":        {modules: "[" + transformer + "," + pooling + `, {"path": "2_Dense", "type": "x.Dense"}]`, pooling: `{"pooling_mode": "cls"}`, err: `module 2: expected Transformer, Pooling or Normalize, got "x.Dense"`},
		"traversal":    {modules: `[{"path": "../other", "type": "x.Transformer"}]`, err: `module 0: path "../other"`},
		"empty":        {modules: `[]`, err: "expected a Transformer, got none"},
		"no pooling":   {modules: "[" + transformer + "]", err: "expected a Pooling, got none"},
		"not a list":   {modules: `{}`, err: "expected a list of modules, got object"},
		"none chosen":  {modules: "[" + transformer + "," + pooling + "]", pooling: `{}`, err: "expected a pooling_mode that is true"},
		"lost config":  {modules: "[" + transformer + "," + pooling + "]", err: "1_Pooling/config.json: "},
		"bad JSON":     {modules: "[" + transformer, err: "modules.json: bad config"},
		"bad length":   {modules: "[" + transformer + "," + pooling + "]", pooling: `{"pooling_mode": "cls"}`, bert: `{"max_seq_length": "256"}`, err: "max_seq_length: expected 1 to"},
		"bad length 2": {modules: "[" + transformer + "," + pooling + "]", pooling: `{"pooling_mode": "cls"}`, bert: `{"max_seq_length": 0}`, err: "max_seq_length: expected 1 to"},
	} {
		dir := t.TempDir()
		for file, text := range map[string]string{"modules.json": c.modules, "1_Pooling/config.json": c.pooling, "sentence_bert_config.json": c.bert} {
			if text != "" {
				write(dir, file, text)
			}
		}
		var e Encoder
		_, err := e.readModules(dir)
		if c.err != "" {
			require.ErrorContains(t, err, c.err, name)
			require.ErrorContains(t, err, dir, name)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, c.want, e, name)
	}
}
