package pickle

import (
	"bytes"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// saved is a file with a value in it, written as torch.save does.
func saved(t *testing.T, v Value) *File {
	data := written(t, v)
	f, err := NewFile(bytes.NewReader(data), int64(len(data)), "saved.bin")
	require.NoError(t, err)
	return f
}

// floats is a tensor of one dimension on a storage of its own.
func floats(vs ...float32) *Tensor {
	var b []byte
	for _, v := range vs {
		b = le.AppendUint32(b, math.Float32bits(v))
	}
	return &Tensor{DType: "float32", Shape: []int{len(vs)}, Strides: []int{1}, Storage: &Storage{DType: "float32", Bytes: int64(len(b)), Location: "cpu", Data: bytes.NewReader(b)}}
}

func dict(pairs ...Value) *Dict {
	d := &Dict{}
	for i := 0; i < len(pairs); i += 2 {
		if err := d.Set(pairs[i], pairs[i+1]); err != nil {
			panic(err)
		}
	}
	return d
}

func TestStateDictTakesWrappingsOff(t *testing.T) {
	model := func(prefix string) *Dict { return dict(prefix+"a.weight", floats(1, 2), prefix+"b", floats(3)) }
	optimizer := dict("state", dict(int64(0), dict("exp_avg", floats(9))), "param_groups", &List{Items: []Value{dict("lr", 0.1, "params", &List{Items: []Value{int64(0)}})}})
	withExtra := model("")
	require.NoError(t, withExtra.Set("layer._extra_state", dict("scale", floats(1))))
	require.NoError(t, withExtra.Set("version", int64(2)))
	for name, root := range map[string]Value{
		"flat": model(""), "DataParallel": model("module."), "extra state": withExtra,
		"lightning":   dict("epoch", int64(3), "state_dict", model(""), "optimizer_states", &List{Items: []Value{optimizer}}),
		"tutorial":    dict("epoch", int64(3), "model_state_dict", model("module."), "optimizer_state_dict", optimizer, "loss", floats(0.5)),
		"fairseq":     dict("args", nil, "model", model(""), "last_optimizer_state", optimizer),
		"deepspeed":   dict("module", model(""), "dp_world_size", int64(2), "optimizer", optimizer),
		"twice":       dict("model", dict("state_dict", model("module."))),
		"OrderedDict": &Dict{Class: OrderedDict, State: dict("_metadata", dict("", dict("version", int64(1)))), items: model("").items},
	} {
		t.Run(name, func(t *testing.T) {
			f := saved(t, root)
			d, err := f.StateDict()
			require.NoError(t, err)
			names := []string{}
			for _, ti := range d.Tensors() {
				names = append(names, ti.Name)
			}
			require.Equal(t, []string{"a.weight", "b"}, names)
			var got [8]byte
			require.NoError(t, d.ReadTensor("a.weight", got[:]))
			require.Equal(t, math.Float32bits(1), le.Uint32(got[:]))
			require.Equal(t, math.Float32bits(2), le.Uint32(got[4:]))
		})
	}
	d, err := saved(t, dict()).StateDict()
	require.NoError(t, err)
	require.Zero(t, d.Len())
	d, err = saved(t, dict("module.a", floats(1), "b", floats(2))).StateDict()
	require.NoError(t, err)
	_, ok := d.Tensor("module.a")
	require.True(t, ok, "a module that is called module")
}

func TestStateDictRefusesToGuess(t *testing.T) {
	w := dict("w", floats(1))
	for name, c := range map[string]struct {
		root Value
		says string
	}{
		"two":                 {dict("model", w, "state_dict", dict("v", floats(2))), "state_dict and model"},
		"tensors beside":      {dict("w", floats(1), "other", w), `tensors beside "other"`},
		"no wrapping we know": {dict("generator", w, "discriminator", w), `keys "generator", "discriminator"`},
		"no tensors":          {dict("epoch", int64(1)), `keys "epoch"`},
		"a list":              {&List{Items: []Value{w}}, "got list"},
		"a tensor":            {floats(1), "got tensor"},
		"numbers as names":    {dict(int64(1), floats(1)), `int "1"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := saved(t, c.root).StateDict()
			require.ErrorIs(t, err, ErrBadPickle)
			require.ErrorContains(t, err, c.says)
			require.ErrorContains(t, err, "saved.bin: ")
		})
	}
}
