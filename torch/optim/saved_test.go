package optim

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/pretrained/pickle"
	"github.com/torchgo/torchgo/torch"
)

func pyDict(t *testing.T, pairs ...any) *pickle.Dict {
	d := &pickle.Dict{}
	for i := 0; i < len(pairs); i += 2 {
		require.NoError(t, d.Set(pairs[i], pairs[i+1]))
	}
	return d
}

// A state goes to package pickle and back; tuples, and a learning rate that is a tensor, become what an optimizer takes.
func TestSavedValue(t *testing.T) {
	torch.Scope(func() {
		p := torch.FromSlice([]float64{1, 2}).SetRequiresGrad(true)
		p.SetGrad(torch.FromSlice([]float64{3, 4}))
		opt := NewAdam([]*torch.Tensor{p}, AdamOptions{LR: 0.5})
		defer opt.Close()
		opt.Step()
		opt.Groups()[0].Set("initial_lr", 0.25)
		saved := opt.StateDict().SavedValue().(*pickle.Dict)
		groups, _ := saved.Get("param_groups")
		group := groups.(*pickle.List).Items[0].(*pickle.Dict)
		for key, want := range map[string]any{"lr": 0.5, "betas": pickle.Tuple{0.9, 0.999}, "params": &pickle.List{Items: []pickle.Value{int64(0)}}, "initial_lr": 0.25, "foreach": nil} {
			got, ok := group.Get(key)
			require.True(t, ok, key)
			require.Equal(t, want, got, key)
		}
		back, err := StateDictOf(saved)
		require.NoError(t, err)
		requireSameDicts(t, opt.StateDict(), back)

		require.NoError(t, group.Set("lr", torch.FromSlice([]float32{0.125})))
		back, err = StateDictOf(saved)
		require.NoError(t, err)
		require.NoError(t, opt.LoadStateDict(back))
		require.Equal(t, 0.125, opt.Groups()[0].LR())
	})
}

func TestStateDictOfRefuses(t *testing.T) {
	list := &pickle.List{}
	groups := &pickle.List{Items: []pickle.Value{pyDict(t, "lr", 0.5)}}
	for want, v := range map[string]any{
		"expected a dict of state and param_groups":         nil,
		"expected a dict of state":                          pyDict(t, "state", pyDict(t)),
		"expected a dict of state and":                      pyDict(t, "state", list, "param_groups", groups),
		`numbers of parameters in state, got "weight"`:      pyDict(t, "state", pyDict(t, "weight", pyDict(t)), "param_groups", groups),
		`numbers of parameters in state, got "-1"`:          pyDict(t, "state", pyDict(t, int64(-1), pyDict(t)), "param_groups", groups),
		"state.0: expected a dict":                          pyDict(t, "state", pyDict(t, int64(0), 1.0), "param_groups", groups),
		`state.0: expected a dict with names as keys`:       pyDict(t, "state", pyDict(t, int64(0), pyDict(t, int64(1), 1.0)), "param_groups", groups),
		"state.0: x: unexpected value of type pickle.DType": pyDict(t, "state", pyDict(t, int64(0), pyDict(t, "x", pickle.DType("int8"))), "param_groups", groups),
		"param_groups.0: expected a dict":                   pyDict(t, "state", pyDict(t), "param_groups", &pickle.List{Items: []pickle.Value{nil}}),
		"param_groups.0: x: y: unexpected value":            pyDict(t, "state", pyDict(t), "param_groups", &pickle.List{Items: []pickle.Value{pyDict(t, "x", pyDict(t, "y", pickle.Tuple{pickle.Device("cpu")}))}}),
	} {
		_, err := StateDictOf(v)
		require.ErrorContains(t, err, want)
	}
}
