package optim

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/strictjson"
	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
)

// stateRef is what tools/optimref recorded of an optimizer: parameters before, after 3 and after 5 steps.
type stateRef struct {
	Options            map[string]any
	Start, Middle, End [][]float64
	Shapes             [][]int
}

func readStates(t *testing.T) (dir string, states map[string]*stateRef) {
	dir = testdata.Open(t, "optim")
	text, err := os.ReadFile(filepath.Join(dir, "states.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &states))
	require.Len(t, states, len(makers)-1, "all but SparseAdam")
	return dir, states
}

// addWithLR adds a group that differs in its learning rate.
func (b *Base[O]) addWithLR(params []*torch.Tensor, lr float64) { b.AddParamGroup(params).SetLR(lr) }

// new makes the optimizer of the reference, on parameters of these values.
func (ref *stateRef) new(name string, values [][]float64) (Optimizer, []*torch.Tensor) {
	var params []*torch.Tensor
	for i, v := range values {
		params = append(params, torch.FromSlice(v, append([]int{}, ref.Shapes[i]...)...).SetRequiresGrad(true))
	}
	first := params
	if name != "LBFGS" {
		first = params[:1]
	}
	opt := makers[name](first, func(table []option) {
		for _, o := range table {
			if v, ok := ref.Options[o.key]; ok {
				if err := o.set(v, true); err != nil {
					panic(err)
				}
			}
		}
	})
	if more, ok := opt.(interface {
		addWithLR(params []*torch.Tensor, lr float64)
	}); ok {
		more.addWithLR(params[1:], 0.02)
	}
	return opt, params
}

// steps trains as the script does.
func steps(opt Optimizer, params []*torch.Tensor, n int) {
	for range n {
		torch.Scope(func() {
			opt.Step(func() *torch.Tensor {
				opt.ZeroGrad()
				total := torch.Zeros([]int{}, torch.TensorOptions{DType: torch.Float64})
				for _, p := range params {
					total = total.Add(p.SubScalar(0.25).PowScalar(2).Sum().Add(p.PowScalar(4).Sum().MulScalar(0.1)))
				}
				total.Backward()
				return total
			})
		})
	}
}

func requireValues(t *testing.T, want [][]float64, params []*torch.Tensor) {
	t.Helper()
	for i, p := range params {
		got := torch.ToSlice[float64](p)
		require.Len(t, got, len(want[i]))
		for k, w := range want[i] {
			require.InEpsilon(t, w, got[k], 1e-11, "parameter %d, element %d", i, k)
		}
	}
}

// requireSame compares values of state dicts. Python has tensors of one number where LBFGS has numbers.
func requireSame(t *testing.T, want, got any, where string) {
	t.Helper()
	wt, isTensor := want.(*torch.Tensor)
	gt, both := got.(*torch.Tensor)
	if isTensor && both {
		require.Equal(t, wt.DType(), gt.DType(), where)
		require.Equal(t, wt.Shape(), gt.Shape(), where)
	}
	if isTensor {
		want = floats(wt)
	}
	if both {
		got = floats(gt)
	}
	if w, ok := number(want); ok {
		want = []float64{w}
	}
	if g, ok := number(got); ok {
		got = []float64{g}
	}
	switch w := want.(type) {
	case []float64:
		g, ok := got.([]float64)
		require.True(t, ok && len(g) == len(w), "%s: want %v, got %v", where, want, got)
		for i := range w {
			require.LessOrEqual(t, math.Abs(w[i]-g[i]), 1e-14+1e-11*math.Abs(w[i]), "%s: want %v, got %v", where, w, g)
		}
	case []any:
		g, ok := got.([]any)
		require.True(t, ok && len(g) == len(w), "%s: want %v, got %v", where, want, got)
		for i := range w {
			requireSame(t, w[i], g[i], fmt.Sprintf("%s.%d", where, i))
		}
	case map[string]any:
		g, ok := got.(map[string]any)
		require.True(t, ok, where)
		require.ElementsMatch(t, keysOf(w), keysOf(g), where)
		for key := range w {
			requireSame(t, w[key], g[key], where+"."+key)
		}
	default:
		require.Equal(t, want, got, where)
	}
}

func keysOf(m map[string]any) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func floats(t *torch.Tensor) []float64 { return torch.ToSlice[float64](t.Detach()) }

func requireSameDicts(t *testing.T, want, got *StateDict) {
	t.Helper()
	require.Len(t, got.State, len(want.State))
	for id, row := range want.State {
		requireSame(t, row, got.State[id], fmt.Sprintf("state.%d", id))
	}
	require.Len(t, got.ParamGroups, len(want.ParamGroups))
	for i, row := range want.ParamGroups {
		g := got.ParamGroups[i]
		ids, err := intList(row["params"])
		require.NoError(t, err)
		gotIDs, err := intList(g["params"])
		require.NoError(t, err)
		require.Equal(t, ids, gotIDs)
		for key := range row {
			if key != "params" {
				requireSame(t, row[key], g[key], fmt.Sprintf("param_groups.%d.%s", i, key))
			}
		}
		require.ElementsMatch(t, keysOf(row), keysOf(g))
	}
}

// A state that Python has written goes on in Go with Python's numbers, and Go writes the state that Python
// writes: the same tensors under the same names, and JSON that says the same. With OPTIM_STATE_OUT=FOLDER the
// files stay there, for tools/optimref/optimref.py --check.
func TestStateFiles(t *testing.T) {
	require.NoError(t, torch.Load())
	ctx := context.Background()
	dir, states := readStates(t)
	out := os.Getenv("OPTIM_STATE_OUT")
	if out == "" {
		out = t.TempDir()
	}
	live := torch.LiveTensors()
	for name, ref := range states {
		t.Run(name, func(t *testing.T) {
			torch.Scope(func() {
				theirs, err := ReadStateDict(ctx, filepath.Join(dir, name+".safetensors"))
				require.NoError(t, err)
				defer theirs.Close()
				opt, params := ref.new(name, ref.Start)
				defer opt.Close()
				steps(opt, params, 3)
				requireValues(t, ref.Middle, params)
				requireSameDicts(t, theirs, opt.StateDict())

				path := filepath.Join(out, name+".safetensors")
				require.NoError(t, opt.StateDict().Save(ctx, path))
				requireSameFiles(t, name, filepath.Join(dir, name+".safetensors"), path)

				resumed, params := ref.new(name, ref.Middle)
				defer resumed.Close()
				for _, g := range resumed.Groups() {
					g.SetLR(7) // the file has the right one
				}
				require.NoError(t, resumed.LoadStateDict(theirs))
				steps(resumed, params, 2)
				requireValues(t, ref.End, params)

				// What Go has written is read back as it was.
				mine, err := ReadStateDict(ctx, path)
				require.NoError(t, err)
				defer mine.Close()
				requireSameDicts(t, opt.StateDict(), mine)
			})
		})
	}
	require.LessOrEqual(t, torch.LiveTensors(), live)
}

// requireSameFiles compares the tensors' names, dtypes and shapes and the JSON of two files.
func requireSameFiles(t *testing.T, name, want, got string) {
	t.Helper()
	read := func(path string) (tensors []string, meta any) {
		f, err := safetensors.Open(path)
		require.NoError(t, err)
		defer f.Close()
		for _, info := range f.Tensors() {
			tensors = append(tensors, fmt.Sprint(info.Name, info.DType, info.Shape))
		}
		require.Equal(t, "pt", f.Metadata()["format"])
		v, err := strictjson.Parse([]byte(f.Metadata()["optimizer"]), strictjson.Options{})
		require.NoError(t, err)
		return tensors, v.Any()
	}
	wantTensors, wantMeta := read(want)
	gotTensors, gotMeta := read(got)
	if name == "LBFGS" { // whose numbers are tensors in Python
		isVector := func(s string) bool { return strings.Contains(s, "[10]") }
		wantTensors = slices.DeleteFunc(wantTensors, func(s string) bool { return !isVector(s) })
		require.Equal(t, wantTensors, gotTensors)
		return
	}
	require.Equal(t, wantTensors, gotTensors)
	requireSame(t, wantMeta, gotMeta, name)
}

// Loading refuses what doesn't fit, names it, and changes nothing.
func TestLoadStateDictRefuses(t *testing.T) {
	dir, states := readStates(t)
	ref := states["Adam"]
	for want, change := range map[string]func(s *StateDict){
		"loaded state dict has a different number of parameter groups":                        func(s *StateDict) { s.ParamGroups = s.ParamGroups[:1] },
		"loaded state dict contains a parameter group that doesn't match the size of optimiz": func(s *StateDict) { s.ParamGroups[1]["params"] = []any{1, 2} },
		"param_groups.0.params: expected a list of integers":                                  func(s *StateDict) { s.ParamGroups[0]["params"] = []any{0.5} },
		"param_groups.1.params: parameter 0 is there twice":                                   func(s *StateDict) { s.ParamGroups[1]["params"] = []any{0} },
		"param_groups.0.betas: unexpected value":                                              func(s *StateDict) { s.ParamGroups[0]["betas"] = []any{0.9} },
		"param_groups.0.lr: unexpected value fast":                                            func(s *StateDict) { s.ParamGroups[0]["lr"] = "fast" },
		"param_groups.1: Invalid learning rate: -1.0":                                         func(s *StateDict) { s.ParamGroups[1]["lr"] = -1 },
		"state.7: no parameter group has that parameter":                                      func(s *StateDict) { s.State[7] = s.State[0] },
		"state.0.exp_avg: the entry is missing":                                               func(s *StateDict) { delete(s.State[0], "exp_avg") },
		"state.1.max_exp_avg_sq: the entry is missing":                                        func(s *StateDict) { delete(s.State[1], "max_exp_avg_sq") },
		"state.0.step: the entry is missing":                                                  func(s *StateDict) { delete(s.State[0], "step") },
		"state.0.exp_avg: expected shape (3, 2), got (4,)":                                    func(s *StateDict) { s.State[0]["exp_avg"] = s.State[1]["exp_avg"] },
		"state.0.exp_avg: expected a tensor":                                                  func(s *StateDict) { s.State[0]["exp_avg"] = 1.0 },
		"state.0.step: expected a number":                                                     func(s *StateDict) { s.State[0]["step"] = "one" },
		"state.0.what: Adam has no such entry":                                                func(s *StateDict) { s.State[0]["what"] = nil },
	} {
		t.Run(want, func(t *testing.T) {
			torch.Scope(func() {
				s, err := ReadStateDict(context.Background(), filepath.Join(dir, "Adam.safetensors"))
				require.NoError(t, err)
				defer s.Close()
				opt, params := ref.new("Adam", ref.Start)
				defer opt.Close()
				steps(opt, params, 3)
				live := torch.LiveTensors()
				change(s)
				require.ErrorContains(t, opt.LoadStateDict(s), "load state dict: "+want)
				require.LessOrEqual(t, torch.LiveTensors(), live)
				steps(opt, params, 2) // as if nothing had happened
				requireValues(t, ref.End, params)
			})
		})
	}
}

// A step count that is a plain number, as old checkpoints have it, and extra entries of groups are fine.
func TestLoadStateDictIsLenient(t *testing.T) {
	dir, states := readStates(t)
	ref := states["AdamW"]
	torch.Scope(func() {
		s, err := ReadStateDict(context.Background(), filepath.Join(dir, "AdamW.safetensors"))
		require.NoError(t, err)
		defer s.Close()
		for _, row := range s.State {
			row["step"] = 3
		}
		s.ParamGroups[0]["initial_lr"] = 0.5
		delete(s.ParamGroups[1], "maximize")
		opt, params := ref.new("AdamW", ref.Middle)
		defer opt.Close()
		require.NoError(t, opt.LoadStateDict(s))
		require.Equal(t, 0.5, opt.Groups()[0].Get("initial_lr"))
		steps(opt, params, 2)
		requireValues(t, ref.End, params)
	})
}

// Files that are no optimizer's state, or lie about it, are refused with the name of what is wrong.
func TestReadStateDictRefuses(t *testing.T) {
	dir := t.TempDir()
	one := safetensors.Source{Name: "state.0.x", DType: safetensors.F32, Shape: []int{1}, Write: safetensors.Data(make([]byte, 4))}
	named := func(name string) []safetensors.Source {
		s := one
		s.Name = name
		return []safetensors.Source{s}
	}
	for i, c := range []struct {
		meta    string
		tensors []safetensors.Source
		want    string
	}{
		{"", nil, `the metadata has no "optimizer"`},
		{"{", nil, "optimizer: invalid JSON"},
		{`{"state":{},"state":{},"param_groups":[]}`, nil, "duplicate name"},
		{`[]`, nil, "expected an object of state and param_groups"},
		{`{"state":[],"param_groups":[]}`, nil, "expected an object of state and param_groups"},
		{`{"state":{},"param_groups":[1]}`, nil, "param_groups.0: expected an object"},
		{`{"state":{"00":{}},"param_groups":[]}`, nil, "state.00: expected a number and an object"},
		{`{"state":{"-1":{}},"param_groups":[]}`, nil, "state.-1: expected a number"},
		{`{"state":{"0":3},"param_groups":[]}`, nil, "state.0: expected a number and an object"},
		{`{"state":{"0":{}},"param_groups":[]}`, named("state.0.x"), `tensor "state.0.x": the JSON has no place for it`},
		{`{"state":{"0":{"x":1}},"param_groups":[]}`, named("state.0.x"), "the JSON has a value in its place"},
		{`{"state":{"0":{"x":[]}},"param_groups":[]}`, named("state.0.x.0"), "the JSON has no place for it"},
		{`{"state":{"0":{"x":[null]}},"param_groups":[]}`, named("state.0.x.00"), "the JSON has no place for it"},
		{`{"state":{"0":{"x":null}},"param_groups":[]}`, named("weight"), "expected a name like state.0.exp_avg"},
		{`{"state":{"0":{"x":null}},"param_groups":[]}`, named("state.0.x.0.0"), "expected a name like state.0.exp_avg"},
		{`{"state":{"0":{"x":null}},"param_groups":[]}`, []safetensors.Source{{Name: "state.0.x", DType: safetensors.F8E4M3, Shape: []int{1}, Write: safetensors.Data([]byte{0})}}, "F8_E4M3 is no dtype of an optimizer's state"},
	} {
		path := filepath.Join(dir, fmt.Sprint(i, ".safetensors"))
		meta := map[string]string{}
		if c.meta != "" {
			meta["optimizer"] = c.meta
		}
		require.NoError(t, safetensors.WriteFile(context.Background(), path, c.tensors, meta))
		live := torch.LiveTensors()
		_, err := ReadStateDict(context.Background(), path)
		require.ErrorContains(t, err, c.want)
		require.ErrorContains(t, err, path)
		require.LessOrEqual(t, torch.LiveTensors(), live)
	}
	_, err := ReadStateDict(context.Background(), filepath.Join(dir, "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// A state that can't be written leaves an old file alone; so does a context that has ended.
func TestSaveRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "opt.safetensors")
	require.NoError(t, (&StateDict{}).Save(context.Background(), path))
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	for _, s := range []*StateDict{
		{State: map[int]map[string]any{0: {"x": struct{}{}}}},
		{ParamGroups: []map[string]any{{"lr": torch.Ones([]int{})}}},
		{State: map[int]map[string]any{0: {"x": torch.Zeros([]int{1}, torch.TensorOptions{DType: torch.Complex128})}}},
	} {
		require.ErrorContains(t, s.Save(context.Background(), path), "save state dict: ")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s := &StateDict{State: map[int]map[string]any{0: {"x": torch.Ones([]int{2})}}}
	require.ErrorIs(t, s.Save(ctx, path), context.Canceled)
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, before, after)
}

// A step that fails leaves a state that the next one can use.
func TestFailedStep(t *testing.T) {
	fails := true
	r := *sgd
	r.update = func(o *SGDOptions, m *batch) {
		sgd.update(o, m)
		if fails {
			panic(&torch.Error{Kind: torch.ErrOutOfMemory})
		}
	}
	p := torch.FromSlice([]float64{1}).SetRequiresGrad(true)
	p.SetGrad(torch.FromSlice([]float64{1}))
	opt := newBase(&r, []*torch.Tensor{p}, []SGDOptions{{LR: 0.25, Momentum: 0.5}})
	defer opt.Close()
	require.ErrorIs(t, torch.TryDo(func() { opt.Step() }), torch.ErrOutOfMemory)
	fails = false
	opt.Step()
	require.Equal(t, []float64{1.5}, torch.ToSlice[float64](opt.StateDict().State[0]["momentum_buffer"].(*torch.Tensor)))
	require.Equal(t, []float64{1 - 0.25 - 0.375}, torch.ToSlice[float64](p))
}
