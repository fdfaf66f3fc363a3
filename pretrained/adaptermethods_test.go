package pretrained_test

import (
	"context"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/peft"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
	"github.com/torchgo/torchgo/torch/nn/nninit"
	"github.com/torchgo/torchgo/torch/optim"
	"github.com/torchgo/torchgo/torch/serialization"
)

func llamaWithout(t *testing.T) pretrained.Model {
	m, _ := load(t, baseDir(t, "llama"), pretrained.Options{Attn: nn.Eager})
	return m
}

func queries(r int) *peft.Config {
	return &peft.Config{PeftType: peft.LoRA, R: torch.Some(r), LoraAlpha: torch.Some(8.), TargetModules: peft.Names{List: []string{"q_proj", "v_proj"}}}
}

// shake gives an adapter values that do something.
func shake(t *testing.T, m pretrained.Model, name string, seed uint64) {
	state, err := m.GetAdapterStateDict(name)
	require.NoError(t, err)
	torch.ManualSeed(seed)
	torch.NoGrad(func() {
		for _, n := range slices.Sorted(maps.Keys(state)) {
			nninit.Normal_(state[n], 0, 0.3)
		}
	})
}

// What can't be done says so, and changes nothing.
func TestAdapterMethodsRefuse(t *testing.T) {
	m := llamaWithout(t)
	for what, err := range map[string]error{
		"set": m.SetAdapter("default"), "enable": m.EnableAdapters(), "disable": m.DisableAdapters(), "delete": m.DeleteAdapter("x"),
		"merge": m.MergeAdapter(), "unmerge": m.UnmergeAdapter(), "merge and unload": m.MergeAndUnload(), "unload": m.UnloadAdapters(),
	} {
		require.ErrorIs(t, err, pretrained.ErrArgument, what)
		require.ErrorContains(t, err, "No adapter loaded. Please load an adapter first.", what)
	}
	_, err := m.GetAdapterStateDict("")
	require.ErrorContains(t, err, "No adapter loaded")
	require.Empty(t, m.ActiveAdapters())
	require.Empty(t, m.PeftConfig())

	before := contents(m)
	trained := func() (n int) {
		for _, p := range nn.NamedParameters(m) {
			if p.RequiresGrad() {
				n++
			}
		}
		return n
	}
	all := trained()
	c := adapterNamed(t, "llama-lora")
	state, err := pretrained.LoadFile(ctx, filepath.Join(c.dir, "adapter_model.safetensors"))
	require.NoError(t, err)
	config, err := peft.ReadConfig(c.dir)
	require.NoError(t, err)
	given := func(change func(map[string]*torch.Tensor)) pretrained.LoadAdapterOptions {
		s := maps.Clone(state)
		change(s)
		return pretrained.LoadAdapterOptions{Config: config, StateDict: maps.All(s), Strict: true}
	}
	const q = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
	for says, o := range map[string]pretrained.LoadAdapterOptions{
		"size mismatch: tensor \"model.layers.0.self_attn.q_proj.lora_A.weight\"": given(func(s map[string]*torch.Tensor) { s[q] = torch.Zeros([]int{4, 5}) }),
		"tensor is missing": given(func(s map[string]*torch.Tensor) { delete(s, q) }),
		"unexpected tensor": given(func(s map[string]*torch.Tensor) { s["other"] = s[q] }),
		"an adapter: expected a path, or a config and a state dict": {Config: config},
	} {
		_, err := m.LoadAdapter(ctx, "", o)
		require.ErrorContains(t, err, says)
		require.Equal(t, before, contents(m), "the model is as it was")
		require.Equal(t, all, trained())
		require.Empty(t, m.PeftConfig())
	}
	for says, c := range map[string]*peft.Config{
		"this kind of adapter is not here: peft_type": {PeftType: "LOHA"},
		"no such module in the base model":            {PeftType: peft.LoRA, TargetModules: peft.Names{List: []string{"nope"}}},
		"an adapter on this module":                   {PeftType: peft.LoRA, TargetModules: peft.Names{List: []string{"mlp"}}},
		"IA³ on this module":                          {PeftType: peft.IA3, TargetModules: peft.Names{List: []string{"embed_tokens"}}, FeedforwardModules: peft.Names{List: []string{}}},
		"lora_bias on an embedding":                   {PeftType: peft.LoRA, LoraBias: true, TargetModules: peft.Names{List: []string{"embed_tokens"}}},
		"init_lora_weights of a new adapter":          {PeftType: peft.LoRA, InitLoraWeights: peft.InitEVA},
	} {
		require.ErrorContains(t, m.AddAdapter(c, ""), says)
		require.Equal(t, before, contents(m), says)
		require.Equal(t, all, trained(), says)
	}
	require.ErrorContains(t, m.AddAdapter(queries(2), "a.b"), "something without dots")

	require.NoError(t, m.AddAdapter(queries(2), ""))
	require.Equal(t, []string{"default"}, m.ActiveAdapters())
	require.ErrorContains(t, m.AddAdapter(queries(2), "default"), "Adapter with name default already exists. Please use a different name.")
	_, err = m.LoadAdapter(ctx, c.dir)
	require.ErrorContains(t, err, "Adapter with name default already exists. Please use a different name.")
	require.ErrorContains(t, m.SetAdapter("other"), "Adapter with name other not found.: expected one of [default]")
	require.ErrorContains(t, m.SetAdapter("default", "default"), "twice")
	require.ErrorContains(t, m.DeleteAdapter("other"), "not found")
	require.ErrorContains(t, m.AddAdapter(&peft.Config{PeftType: peft.IA3}, "scales"), "adapters of two kinds on one model")
	_, err = m.ResizeTokenEmbeddings(7)
	require.ErrorIs(t, err, pretrained.ErrUnsupported)
	for _, err := range []error{err, m.TieWeights(), m.SetInputEmbeddings(nn.NewEmbedding(96, 32)), m.SetOutputEmbeddings(nn.NewLinear(32, 96))} {
		require.ErrorContains(t, err, "a model with adapters; do it before there are any, or merge and unload them")
	}

	require.NoError(t, m.MergeAdapter())
	for what, err := range map[string]error{
		"set": m.SetAdapter("default"), "disable": m.DisableAdapters(), "delete": m.DeleteAdapter("default"), "add": m.AddAdapter(queries(2), "b"),
		"unload": m.UnloadAdapters(),
	} {
		require.ErrorContains(t, err, "a model with merged adapters (default); unmerge them first", what)
	}
	require.NoError(t, m.UnmergeAdapter())
	require.NoError(t, m.DisableAdapters())
	require.ErrorContains(t, m.MergeAdapter(), "adapters that are enabled")
}

// Adding, choosing, taking out; names as peft's, in memory below the module's.
func TestAdapterMethods(t *testing.T) {
	m := llamaWithout(t)
	plain, before := logits(t, m, "llama"), contents(m)
	for i, name := range []string{"b", "a", "c"} {
		require.NoError(t, m.AddAdapter(queries(2+i), name))
		require.Equal(t, []string{name}, m.ActiveAdapters(), "a new one is active alone")
		shake(t, m, name, uint64(i))
	}
	state, err := m.GetAdapterStateDict("")
	require.NoError(t, err)
	require.Len(t, state, 2*2*2)
	require.Equal(t, []int{4, 32}, state["model.layers.0.self_attn.q_proj.lora_A.weight"].Shape())
	p, err := nn.GetParameter(m, "model.layers.0.self_attn.q_proj.lora_A.c.weight")
	require.NoError(t, err)
	require.True(t, p.RequiresGrad())
	for name, p := range nn.NamedParameters(m) {
		require.Equal(t, strings.Contains(name, ".c.weight"), p.RequiresGrad(), name)
	}
	outputs := map[string]*torch.Tensor{}
	for _, name := range []string{"a", "b", "c"} {
		require.NoError(t, m.SetAdapter(name))
		outputs[name] = logits(t, m, "llama")
		require.Greater(t, far(t, plain, outputs[name]), 0.01)
	}
	require.NoError(t, m.SetAdapter("a", "b"))
	for name, p := range nn.NamedParameters(m) {
		require.Equal(t, strings.Contains(name, ".a.weight") || strings.Contains(name, ".b.weight"), p.RequiresGrad(), name)
	}
	require.NoError(t, m.DisableAdapters())
	require.Zero(t, far(t, plain, logits(t, m, "llama")))
	for name, p := range nn.NamedParameters(m) {
		require.False(t, p.RequiresGrad(), name)
	}
	require.Equal(t, []string{"a", "b"}, m.ActiveAdapters())
	require.NoError(t, m.EnableAdapters())
	require.Greater(t, far(t, plain, logits(t, m, "llama")), 0.01)

	require.NoError(t, m.DeleteAdapter("b"))
	require.Equal(t, []string{"a"}, m.ActiveAdapters())
	require.Zero(t, far(t, outputs["a"], logits(t, m, "llama")))
	require.NoError(t, m.DeleteAdapter("a"))
	require.Equal(t, []string{"c"}, m.ActiveAdapters())
	require.Zero(t, far(t, outputs["c"], logits(t, m, "llama")))
	live := torch.LiveTensors()
	require.NoError(t, m.DeleteAdapter("c"))
	require.Less(t, torch.LiveTensors(), live)
	require.Equal(t, before, contents(m))
	require.Zero(t, far(t, plain, logits(t, m, "llama")))
	require.ErrorContains(t, m.SetAdapter("c"), "No adapter loaded")

	require.NoError(t, m.AddAdapter(queries(2), "again"))
	require.NoError(t, m.UnloadAdapters())
	require.Equal(t, before, contents(m))
	_, err = m.ResizeTokenEmbeddings(99)
	require.NoError(t, err)
}

// Another adapter in the place of one: the tensors of the model stay, of lower ranks too.
func TestHotswap(t *testing.T) {
	dir := testdata.Open(t, "peft")
	names := []string{"llama-lora-gaussian", "llama-lora", "llama-lora-layers"} // ranks 4, 4, 4; the last for other modules
	m := llamaWithout(t)
	require.NoError(t, m.EnablePeftHotswap(6))
	path := func(name string) string { return filepath.Join(dir, "adapters", name) }
	_, err := m.LoadAdapter(ctx, path(names[0]))
	require.NoError(t, err)
	a, err := nn.GetParameter(m, "model.layers.0.self_attn.q_proj.lora_A.default.weight")
	require.NoError(t, err)
	require.Equal(t, []int{6, 32}, a.Shape(), "with room")
	require.LessOrEqual(t, far(t, adapterNamed(t, names[0]).want["logits"], logits(t, m, "llama")), 2e-6)

	_, err = m.LoadAdapter(ctx, path(names[1]))
	require.NoError(t, err, "once enabled, the same name swaps")
	now, err := nn.GetParameter(m, "model.layers.0.self_attn.q_proj.lora_A.default.weight")
	require.NoError(t, err)
	require.Same(t, a, now)
	require.LessOrEqual(t, far(t, adapterNamed(t, names[1]).want["logits"], logits(t, m, "llama")), 2e-6)
	to := t.TempDir()
	require.NoError(t, pretrained.SavePretrained(ctx, m, to, pretrained.SaveOptions{}))
	for _, name := range []string{"adapter_config.json", "adapter_model.safetensors"} {
		want, err := os.ReadFile(filepath.Join(path(names[1]), name))
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join(to, name))
		require.NoError(t, err)
		require.Equal(t, string(want), string(got), "the room is not saved")
	}

	// A lower rank with another alpha computes what it computes on a model of its own.
	other := llamaWithout(t)
	small := queries(2)
	small.LoraAlpha = torch.Some(5.)
	require.NoError(t, other.AddAdapter(small, ""))
	shake(t, other, "", 3)
	state, err := other.GetAdapterStateDict("")
	require.NoError(t, err)
	_, err = m.LoadAdapter(ctx, "", pretrained.LoadAdapterOptions{Config: small, StateDict: maps.All(state), IsTrainable: true})
	require.NoError(t, err)
	require.LessOrEqual(t, far(t, logits(t, other, "llama"), logits(t, m, "llama")), 2e-6)
	require.True(t, a.RequiresGrad())
	require.NoError(t, m.MergeAdapter())
	require.LessOrEqual(t, far(t, logits(t, other, "llama"), logits(t, m, "llama")), 2e-6)
	require.NoError(t, m.UnmergeAdapter())

	// The room gets no gradient, so that it stays zeros in training.
	_, grads := step(m, batch())
	g := grads["model.layers.0.self_attn.q_proj.lora_A.default.weight"]
	require.NotZero(t, torch.Item[float32](g.Narrow(0, 0, 2).Abs().Amax()))
	require.Zero(t, torch.Item[float32](g.Narrow(0, 2, 4).Abs().Amax()))

	before := contents(m)
	bigger := queries(7)
	require.NoError(t, llamaWithout(t).AddAdapter(bigger, ""))
	for says, c := range map[string]string{"hot-swapping an adapter for a module": names[2], "hot-swapping: use_dora": "llama-dora", "hot-swapping adapters that are not LoRA": "llama-ia3"} {
		_, err := m.LoadAdapter(ctx, path(c))
		require.ErrorContains(t, err, says)
		require.Equal(t, before, contents(m))
	}
	wide := llamaWithout(t)
	require.NoError(t, wide.AddAdapter(bigger, ""))
	state, err = wide.GetAdapterStateDict("")
	require.NoError(t, err)
	_, err = m.LoadAdapter(ctx, "", pretrained.LoadAdapterOptions{Config: bigger, StateDict: maps.All(state)})
	require.ErrorIs(t, err, pretrained.ErrSizeMismatch)
	require.ErrorContains(t, err, "rank: expected at most 6, got 7")
	require.Equal(t, before, contents(m))

	require.ErrorContains(t, m.EnablePeftHotswap(8), "Call `enable_peft_hotswap` before loading the first adapter.")
	require.Error(t, llamaWithout(t).EnablePeftHotswap(0))
	_, err = llamaWithout(t).LoadAdapter(ctx, path(names[0]), pretrained.LoadAdapterOptions{Hotswap: torch.Some(true)})
	require.ErrorContains(t, err, "To hotswap an adapter, there must already be an existing adapter with the same adapter name.")
	_, err = m.LoadAdapter(ctx, path(names[0]), pretrained.LoadAdapterOptions{Hotswap: torch.Some(false)})
	require.ErrorContains(t, err, "already exists")
}

// Training changes the adapter and nothing else; checkpointing changes no bit of it.
func TestTrainingAnAdapter(t *testing.T) {
	for _, c := range []*peft.Config{
		queries(3),
		{PeftType: peft.LoRA, LoraDropout: 0.3, UseDoRA: true, TargetModules: peft.Names{Pattern: "all-linear"}},
		{PeftType: peft.LoRA, TargetModules: peft.Names{List: []string{"q_proj"}}, ModulesToSave: []string{"lm_head", "input_layernorm"}},
		{PeftType: peft.IA3},
	} {
		m := llamaWithout(t)
		m.Train()
		require.NoError(t, m.AddAdapter(c, "default"))
		own := contents(m)
		for name := range nn.StateDict(m) {
			if strings.Contains(name, "lora_") || strings.Contains(name, "ia3_") || strings.HasPrefix(name, "modules_to_save") {
				delete(own, name)
			}
		}
		loss, want := step(m, batch())
		for name, g := range want {
			require.NotContains(t, []string{"model.embed_tokens.weight", "model.norm.weight"}, name)
			require.False(t, math.IsNaN(float64(torch.Item[float32](g.Sum()))), name)
		}
		require.NoError(t, m.ActivationCheckpointingEnable())
		again, got := step(m, batch())
		require.Equal(t, loss, again)
		equalGrads(t, want, got, "checkpointing")
		m.ActivationCheckpointingDisable()

		opt := optim.NewAdamW(nn.Parameters(m), optim.AdamWOptions{LR: 0.05})
		first := float32(0)
		for i := range 12 {
			l, _ := step(m, batch())
			if i == 0 {
				first = l
			}
			opt.Step()
			loss = l
		}
		require.Less(t, loss, 0.9*first)
		saved := len(c.ModulesToSave) > 0
		for name, x := range nn.StateDict(m) {
			if saved && (name == "lm_head.weight" || strings.HasSuffix(name, "input_layernorm.weight")) {
				require.NotEqual(t, own[name], string(x.Detach().Bytes()), "%s is the adapter's copy", name)
			} else if own[name] != "" {
				require.Equal(t, own[name], string(x.Detach().Bytes()), name)
			}
		}
		require.NoError(t, m.UnloadAdapters())
		require.Equal(t, own, contents(m))
	}
}

// A copy of a model has adapters of its own; moving and converting reaches all of them.
func TestAdaptersOfCopiesAndMovedModels(t *testing.T) {
	run := func(m pretrained.Model) *torch.Tensor {
		return torch.InferenceOf(func() *torch.Tensor { return m.Forward(batch()).Logits })
	}
	m := llamaWithout(t)
	c := &peft.Config{PeftType: peft.LoRA, TargetModules: peft.Names{List: []string{"q_proj", "embed_tokens"}}, ModulesToSave: []string{"lm_head"}}
	require.NoError(t, m.AddAdapter(c, "one"))
	shake(t, m, "one", 1)
	plainOf := func(m pretrained.Model) *torch.Tensor {
		require.NoError(t, m.DisableAdapters())
		defer func() { require.NoError(t, m.EnableAdapters()) }()
		return run(m)
	}
	plain, want := plainOf(m), run(m)
	copied := nn.Clone(m)
	defer copied.Close()
	require.Zero(t, far(t, want, run(copied)))
	require.Zero(t, far(t, plain, plainOf(copied)))
	before := contents(m)
	require.NoError(t, copied.AddAdapter(queries(2), "two"))
	require.NoError(t, copied.DeleteAdapter("one"))
	require.Equal(t, []string{"one"}, m.ActiveAdapters())
	require.Equal(t, before, contents(m))
	require.Zero(t, far(t, want, run(m)))
	require.Zero(t, far(t, plain, run(copied)), "two does nothing yet")

	require.NoError(t, m.MergeAdapter())
	merged := nn.Clone(m)
	defer merged.Close()
	require.NoError(t, merged.UnmergeAdapter())
	require.Zero(t, far(t, want, run(merged)))
	require.NoError(t, m.UnmergeAdapter())

	require.NoError(t, m.Double())
	for name, p := range nn.NamedParameters(m) {
		require.Equal(t, torch.Float64, p.DType(), name)
	}
	require.Less(t, far(t, plain, plainOf(m).ToDType(torch.Float32)), 1e-5, "the model's own lm_head, too")
	require.NoError(t, m.Float())
	require.Less(t, far(t, want, run(m)), 1e-5)

	// In bfloat16 adapters have the dtype of their layers.
	half, _ := load(t, baseDir(t, "llama"), pretrained.Options{DType: torch.BFloat16})
	require.NoError(t, half.AddAdapter(queries(2), ""))
	shake(t, half, "", 1)
	x := run(half)
	require.Equal(t, torch.BFloat16, x.DType())
	require.NoError(t, half.MergeAdapter())
	require.Less(t, far(t, x.ToDType(torch.Float32), run(half).ToDType(torch.Float32)), 0.05)
}

// Over weights that are offloaded adapters compute the same; what needs the weights' values is refused.
func TestAdaptersOverOffloadedWeights(t *testing.T) {
	c := adapterNamed(t, "llama-lora-rslora")
	for what, dm := range offloadMaps("model.layers") {
		o := pretrained.Options{DeviceMap: dm, Attn: nn.Eager}
		t.Run(what, func(t *testing.T) {
			if slices.ContainsFunc(slices.Collect(maps.Values(dm)), func(d string) bool { return strings.HasPrefix(d, "cuda") }) {
				pretrained.Simulate(t, torch.CPU, torch.CPU)
			}
			m, _ := load(t, baseDir(t, "llama"), o)
			_, err := m.LoadAdapter(ctx, c.dir, pretrained.LoadAdapterOptions{Strict: true})
			require.NoError(t, err)
			require.LessOrEqual(t, far(t, c.want["logits"], logits(t, m, "llama")), 2e-6)
			require.NoError(t, m.DisableAdapters())
			require.LessOrEqual(t, far(t, c.want["disabled"], logits(t, m, "llama")), 2e-6)
			require.NoError(t, m.EnableAdapters())
			dir := t.TempDir()
			require.NoError(t, pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{}))
			want, err := os.ReadFile(filepath.Join(c.dir, "adapter_model.safetensors"))
			require.NoError(t, err)
			got, err := os.ReadFile(filepath.Join(dir, "adapter_model.safetensors"))
			require.NoError(t, err)
			require.Equal(t, string(want), string(got))
		})
	}
	m, _ := load(t, baseDir(t, "llama"), pretrained.Options{DeviceMap: pretrained.DeviceMap{"": "disk"}})
	_, err := m.LoadAdapter(ctx, c.dir, pretrained.LoadAdapterOptions{Strict: true})
	require.NoError(t, err)
	for _, err := range []error{m.MergeAdapter(), m.MergeAndUnload()} {
		require.ErrorIs(t, err, pretrained.ErrUnsupported)
		require.ErrorContains(t, err, "a weight that is offloaded; load the model without offloading")
	}
	require.NoError(t, m.UnloadAdapters())
	for _, name := range []string{"llama-dora", "llama-lora-saved", "llama-lora-embedding"} {
		_, err := m.LoadAdapter(ctx, adapterNamed(t, name).dir)
		require.ErrorIs(t, err, pretrained.ErrUnsupported, name)
		require.ErrorContains(t, err, "offloaded", name)
		require.Empty(t, m.PeftConfig())
	}
}

// A save that fails leaves the adapter that was there, and no file of its own.
func TestSavingAnAdapterThatFails(t *testing.T) {
	m := llamaWithout(t)
	require.NoError(t, m.AddAdapter(queries(2), "a"))
	require.NoError(t, m.AddAdapter(queries(3), "b"))
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "model.safetensors"), []byte("of somebody else"), 0o600))
	require.NoError(t, pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{}))
	before := folder(t, dir)
	require.Len(t, before, 3)
	stop, cancel := context.WithCancel(ctx)
	require.NoError(t, m.SetAdapter("a"))
	err := pretrained.SavePretrained(stop, m, dir, pretrained.SaveOptions{Progress: func(int64, int64) { cancel() }})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, before, folder(t, dir))
	require.NoError(t, m.SetAdapter("a", "b"))
	err = pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{})
	require.ErrorIs(t, err, pretrained.ErrUnsupported)
	require.ErrorContains(t, err, "several active adapters (a, b); make one after the other the active one (SetAdapter) and save it")
	require.Equal(t, before, folder(t, dir))
	err = pretrained.SavePretrained(stop, m, filepath.Join(dir, "new", "er"), pretrained.SaveOptions{})
	require.Error(t, err)
	_, err = os.Stat(filepath.Join(dir, "new"))
	require.ErrorIs(t, err, fs.ErrNotExist)

	require.NoError(t, m.SetAdapter("a"))
	require.NoError(t, pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{SavePeftFormat: torch.Some(false)}))
	tensors, err := pretrained.LoadFile(ctx, filepath.Join(dir, "adapter_model.safetensors"))
	require.NoError(t, err)
	require.Contains(t, tensors, "model.layers.0.self_attn.q_proj.lora_A.weight")
	require.Equal(t, before["adapter_config.json"], folder(t, dir)["adapter_config.json"])
}

// What is odd about an adapter is in the report, and with its config.
func TestAdapterWarnings(t *testing.T) {
	c := adapterNamed(t, "llama-lora")
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(c.dir)))
	path := filepath.Join(dir, "adapter_config.json")
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	changed := strings.Replace(string(data), `"rank_pattern": {}`, `"rank_pattern": {"nope": 3}, "of_the_future": 1`, 1)
	require.NotEqual(t, string(data), changed)
	require.NoError(t, os.WriteFile(path, []byte(changed), 0o600))
	m := llamaWithout(t)
	r, err := m.LoadAdapter(ctx, dir)
	require.NoError(t, err)
	all := strings.Join(r.Warnings, "\n")
	require.Contains(t, all, "of_the_future")
	require.Contains(t, all, "rank_pattern matches no target: \"nope\"")
	require.Equal(t, r.Warnings, m.PeftConfig()["default"].Warnings)
}

// An adapter that torch.save wrote, as peft did before safetensors.
func TestAdapterFromPickle(t *testing.T) {
	c := adapterNamed(t, "llama-dora")
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(c.dir)))
	tensors, err := pretrained.LoadFile(ctx, filepath.Join(dir, "adapter_model.safetensors"))
	require.NoError(t, err)
	require.NoError(t, serialization.Save(ctx, filepath.Join(dir, "adapter_model.bin"), tensors))
	safe := filepath.Join(dir, "adapter_model.safetensors")
	require.NoError(t, os.WriteFile(safe, []byte("broken"), 0o600))
	m := llamaWithout(t)
	_, err = m.LoadAdapter(ctx, dir)
	require.Error(t, err, "safetensors come first")
	_, err = m.LoadAdapter(ctx, dir, pretrained.LoadAdapterOptions{UseSafetensors: torch.Some(false), Strict: true})
	require.NoError(t, err)
	require.LessOrEqual(t, far(t, c.want["logits"], logits(t, m, c.Base)), 2e-6)
	require.NoError(t, os.Remove(safe))
	require.NoError(t, m.UnloadAdapters())
	_, err = m.LoadAdapter(ctx, dir, pretrained.LoadAdapterOptions{UseSafetensors: torch.Some(true)})
	require.ErrorIs(t, err, pretrained.ErrMissingShard)
	_, err = m.LoadAdapter(ctx, dir, pretrained.LoadAdapterOptions{Strict: true})
	require.NoError(t, err)
	require.LessOrEqual(t, far(t, c.want["logits"], logits(t, m, c.Base)), 2e-6)
}

// Loading, merging, taking out and failing leave no tensor behind.
func TestAdaptersLeaveNothing(t *testing.T) {
	m := llamaWithout(t)
	var cases []adapterCase
	for _, c := range adapterCases(t) {
		if c.Base == "llama" {
			cases = append(cases, c)
		}
	}
	round := func() {
		for _, c := range cases {
			_, err := m.LoadAdapter(ctx, c.dir)
			require.NoError(t, err)
			require.NoError(t, m.MergeAdapter())
			require.NoError(t, m.UnmergeAdapter())
			require.NoError(t, m.DisableAdapters())
			require.NoError(t, m.EnableAdapters())
			require.NoError(t, m.DeleteAdapter("default"))
			_, err = m.LoadAdapter(ctx, filepath.Join(filepath.Dir(c.dir), "bert-lora"))
			require.Error(t, err)
		}
	}
	round()
	runtime.GC()
	before, own := torch.LiveTensors(), contents(m)
	round()
	require.Equal(t, before, torch.LiveTensors())
	require.Equal(t, own, contents(m))
}
