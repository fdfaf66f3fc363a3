package pretrained_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// languageModels are cases with a loss over a batch of ids.
func languageModels(t *testing.T) map[string]string {
	return map[string]string{
		"bert-mlm":               filepath.Join(testdata.Open(t, "models-bert"), "bert-mlm"),
		"lm-head":                filepath.Join(testdata.Open(t, "bert-heads"), "lm-head"),
		"llama":                  filepath.Join(testdata.Open(t, "models-llama"), "llama"),
		"llama-tied-rope-llama3": filepath.Join(testdata.Open(t, "models-llama"), "llama-tied-rope-llama3"),
	}
}

// batch is ids with padding, and their labels.
func batch() pretrained.Inputs {
	ids := torch.FromSlice([]int64{3, 14, 15, 9, 2, 6, 5, 8, 9, 7, 0, 0}, 2, 6)
	mask := torch.FromSlice([]int64{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0}, 2, 6)
	return pretrained.Inputs{InputIDs: ids, AttentionMask: mask, Labels: ids}
}

// step computes loss and gradients from one seed.
func step(m pretrained.Model, in pretrained.Inputs) (loss float32, grads map[string]*torch.Tensor) {
	nn.ZeroGrad(m)
	torch.ManualSeed(11)
	torch.Scope(func() {
		l := m.Forward(in).Loss
		l.Backward()
		loss = torch.Item[float32](l.ToDType(torch.Float32))
	})
	grads = torch.ScopeOf(func() map[string]*torch.Tensor {
		copies := map[string]*torch.Tensor{}
		for name, p := range nn.NamedParameters(m) {
			if g := p.Grad(); g != nil {
				copies[name] = g.Clone()
			}
		}
		return copies
	})
	return loss, grads
}

func equalGrads(t *testing.T, want, got map[string]*torch.Tensor, about string) {
	t.Helper()
	require.Len(t, got, len(want), about)
	for name, g := range want {
		require.True(t, g.Equal(got[name]), "%s of %s", name, about)
	}
}

// Gradients are the same to the last bit, dropout included, whatever is checkpointed and however often.
func TestActivationCheckpointingIsExact(t *testing.T) {
	for name, dir := range languageModels(t) {
		config := map[string]any{}
		if strings.HasPrefix(name, "llama") {
			config["attention_dropout"] = 0.2
		}
		m, _ := load(t, dir, pretrained.Options{DType: torch.Float32, Config: config})
		in := batch()
		m.Train()
		loss, want := step(m, in)
		m.Eval()
		calm, _ := step(m, in)
		require.NotEqual(t, calm, loss, "there is dropout")
		m.Train()
		for _, o := range []pretrained.ActivationCheckpointingOptions{{}, {EveryNLayers: 2}, {Offload: true}, {UseReentrant: torch.Some(false)}} {
			require.NoError(t, m.ActivationCheckpointingEnable(o))
			require.True(t, m.IsActivationCheckpointing())
			var live int64
			for n := range 3 {
				again, got := step(m, in)
				require.Equal(t, loss, again)
				equalGrads(t, want, got, name)
				for _, g := range got {
					g.Close()
				}
				if n == 1 {
					live = torch.LiveTensors()
				}
			}
			require.LessOrEqual(t, torch.LiveTensors(), live, "a step leaves nothing")
		}
		copied := nn.Clone(m)
		defer copied.Close()
		_, got := step(copied, in)
		equalGrads(t, want, got, "the copy of "+name)
		m.ActivationCheckpointingDisable()
		require.False(t, m.IsActivationCheckpointing())
		require.True(t, copied.IsActivationCheckpointing())
	}
}

// The forward pass may be in a scope that has ended when backward runs the layers again.
func TestActivationCheckpointingOutlivesScopes(t *testing.T) {
	for name, dir := range languageModels(t) {
		m, _ := load(t, dir, pretrained.Options{DType: torch.Float32})
		m.Train()
		_, want := step(m, batch())
		nn.ZeroGrad(m)
		require.NoError(t, m.ActivationCheckpointingEnable())
		torch.ManualSeed(11)
		loss := torch.ScopeOf(func() *torch.Tensor { return m.Forward(batch()).Loss })
		loss.Backward()
		for key, p := range nn.NamedParameters(m) {
			if g, ok := want[key]; ok {
				require.True(t, g.Equal(p.Grad()), "%s of %s", key, name)
			}
		}
		loss.Close()
	}
}

// saved counts the tensors, and their bytes, that a forward pass keeps for backward.
func saved(m pretrained.Model, in pretrained.Inputs) (n, bytes int64) {
	var tensors, size atomic.Int64
	torch.Scope(func() {
		torch.SavedTensorHooks(
			func(t *torch.Tensor) *torch.Tensor {
				tensors.Add(1)
				size.Add(int64(t.NumBytes()))
				return t
			},
			func(t *torch.Tensor) *torch.Tensor { return t },
			func() { m.Forward(in) })
	})
	return tensors.Load(), size.Load()
}

// A layer saves its inputs in place of dozens of tensors; in evaluation mode it is as if nothing were on.
func TestActivationCheckpointingSavesMemory(t *testing.T) {
	for name, dir := range languageModels(t) {
		m, _ := load(t, dir, pretrained.Options{DType: torch.Float32, Config: map[string]any{"num_hidden_layers": int64(4)}, DisableMmap: true})
		in := batch()
		m.Eval()
		evaluated, _ := saved(m, in)
		m.Train()
		all, allBytes := saved(m, in)
		require.NoError(t, m.ActivationCheckpointingEnable(pretrained.ActivationCheckpointingOptions{EveryNLayers: 2}))
		half, halfBytes := saved(m, in)
		require.NoError(t, m.ActivationCheckpointingEnable(pretrained.ActivationCheckpointingOptions{EveryNLayers: 3}))
		ends, _ := saved(m, in) // as transformers counts: index % 3 == 0
		require.Equal(t, half, ends, "the first and the last of four")
		require.NoError(t, m.ActivationCheckpointingEnable())
		none, noneBytes := saved(m, in)
		t.Logf("%s: %d tensors (%d bytes), every second layer %d (%d), every layer %d (%d)", name, all, allBytes, half, halfBytes, none, noneBytes)
		require.Equal(t, all-half, half-none, "two layers each")
		require.Less(t, 2*noneBytes, allBytes)
		perLayer := (all - none) / 4
		require.Greater(t, perLayer, int64(10))
		m.Eval()
		again, _ := saved(m, in)
		require.Equal(t, evaluated, again)
	}
}

// adapted is a frozen matrix with a trained one of low rank beside it.
type adapted struct {
	nn.Dense
	A *torch.Tensor `torch:"lora_A"`
	B *torch.Tensor `torch:"lora_B"`
}

func (a *adapted) Forward(x, bias *torch.Tensor) *torch.Tensor {
	return a.Dense.Forward(x, bias).Add(x.MatMul(a.A.T()).MatMul(a.B.T()))
}

// With a frozen model around them, adapters get the gradients that they get without checkpointing; what the
// input embeddings give requires gradients where asked for.
func TestActivationCheckpointingWithAdapters(t *testing.T) {
	m, _ := load(t, languageModels(t)["llama"], pretrained.Options{DType: torch.Float32})
	m.SetRequiresGrad(false)
	in := batch()
	m.Train()
	var embedded *torch.Tensor
	nn.RegisterForwardHook(m.InputEmbeddings(), func(_ any, _, out []*torch.Tensor) []*torch.Tensor { embedded = out[0]; return nil })
	requires := func() (loss, embeddings bool) {
		torch.Scope(func() { loss = m.Forward(in).Loss.RequiresGrad(); embeddings = embedded.RequiresGrad() })
		return loss, embeddings
	}
	for _, c := range []struct {
		change func()
		want   bool
	}{
		{func() {}, false}, {m.EnableInputRequireGrads, true}, {m.EnableInputRequireGrads, true}, {m.DisableInputRequireGrads, false},
		{func() { require.NoError(t, m.ActivationCheckpointingEnable()) }, true}, {m.DisableInputRequireGrads, false}, {m.DisableInputRequireGrads, false},
	} {
		c.change()
		loss, embeddings := requires()
		require.Equal(t, c.want, loss)
		require.Equal(t, c.want, embeddings)
	}
	m.ActivationCheckpointingDisable()

	layer, err := nn.GetSubmodule(m, "model.layers.1.self_attn.q_proj")
	require.NoError(t, err)
	l := layer.(*nn.Linear)
	in0, out := l.Weight.Features()
	a := &adapted{Dense: *l.Weight.(*nn.Dense), A: torch.Randn([]int{2, in0}).SetRequiresGrad(true), B: torch.Randn([]int{out, 2}).SetRequiresGrad(true)}
	l.Weight = a
	loss, want := step(m, in)
	require.Len(t, want, 2)
	require.NoError(t, m.ActivationCheckpointingEnable())
	again, got := step(m, in)
	require.Equal(t, loss, again)
	equalGrads(t, want, got, "adapters")
	m.DisableInputRequireGrads()
	_, got = step(m, in)
	equalGrads(t, want, got, "adapters without gradients of inputs")
}

func TestActivationCheckpointingRefuses(t *testing.T) {
	m, _ := load(t, loaderCase(t, "single"), pretrained.Options{})
	err := m.ActivationCheckpointingEnable(pretrained.ActivationCheckpointingOptions{UseReentrant: torch.Some(true)})
	require.ErrorIs(t, err, pretrained.ErrUnsupported)
	require.ErrorContains(t, err, "the gradients are the same")
	require.ErrorIs(t, m.ActivationCheckpointingEnable(pretrained.ActivationCheckpointingOptions{EveryNLayers: -1}), pretrained.ErrArgument)
	require.False(t, m.IsActivationCheckpointing())
	require.NoError(t, m.GradientCheckpointingEnable()) // the former names
	require.True(t, m.IsGradientCheckpointing() && m.IsActivationCheckpointing())
	m.GradientCheckpointingDisable()
	require.False(t, m.IsActivationCheckpointing())

	plain, _ := load(t, plainFolder(t), pretrained.Options{})
	require.ErrorIs(t, plain.ActivationCheckpointingEnable(), pretrained.ErrUnsupported)
	require.Nil(t, plain.InputEmbeddings())
	require.ErrorIs(t, plain.SetInputEmbeddings(nn.NewEmbedding(1, 1)), pretrained.ErrUnsupported)
	_, err = plain.ResizeTokenEmbeddings(3)
	require.ErrorIs(t, err, pretrained.ErrUnsupported)
	require.ErrorContains(t, err, "MethodsTestModel has no input embeddings")
	err = torch.TryDo(plain.EnableInputRequireGrads)
	require.ErrorIs(t, err, torch.ErrArgument)
	require.Same(t, plain, plain.BaseModel())
	require.Same(t, plain, plain.GetEncoder())
}

// An old config asks for it; the key goes.
func TestActivationCheckpointingOfAConfig(t *testing.T) {
	for _, on := range []bool{false, true} {
		m, _ := load(t, loaderCase(t, "single"), pretrained.Options{Config: map[string]any{"output_hidden_states": false}})
		require.False(t, m.IsActivationCheckpointing())
		dir := t.TempDir()
		require.NoError(t, pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{}))
		path := filepath.Join(dir, "config.json")
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		value := map[bool]string{false: "false", true: "true"}[on]
		require.NoError(t, os.WriteFile(path, []byte(strings.Replace(string(data), "{", `{"gradient_checkpointing": `+value+",", 1)), 0o600))
		m, _ = load(t, dir, pretrained.Options{})
		require.Equal(t, on, m.IsActivationCheckpointing())
		require.NoError(t, pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{}))
		data, err = os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, !on, strings.Contains(string(data), "gradient_checkpointing"))
	}
}

// plainModel is an architecture without layers and embeddings.
type plainModel struct {
	pretrained.PreTrainedModel

	Proj *nn.Linear `torch:"proj"`
}

type plainConfig struct{ pretrained.ConfigBase }

func (c *plainConfig) Validate() error { return nil }

func (m *plainModel) Forward(in pretrained.Inputs) *pretrained.Output {
	return &pretrained.Output{Logits: m.Proj.Forward(in.InputsEmbeds)}
}

func init() {
	pretrained.Register(pretrained.Architecture{
		ModelType: "methods-test",
		NewConfig: func() pretrained.Config {
			return &plainConfig{pretrained.ConfigBase{ModelType: "methods-test"}}
		},
		Classes: []pretrained.Class{{Name: "MethodsTestModel", New: pretrained.Build(func(b nn.Builder, _ *plainConfig) *plainModel {
			return &plainModel{Proj: b.Linear(2, 3)}
		})}},
	})
}

func plainFolder(t *testing.T) string {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"model_type": "methods-test", "architectures": ["MethodsTestModel"]}`), 0o600))
	weights := map[string]*torch.Tensor{"proj.weight": torch.Ones([]int{3, 2}), "proj.bias": torch.Ones([]int{3})}
	require.NoError(t, pretrained.SaveFile(ctx, filepath.Join(dir, "model.safetensors"), weights, map[string]string{"format": "pt"}))
	return dir
}
