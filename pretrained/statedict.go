package pretrained

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/pretrained/checkpoint"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
)

// LoadStateDictOptions are the optional arguments of LoadStateDict.
type LoadStateDictOptions struct {
	MapLocation torch.Device // where the tensors go; torch.Meta gives shapes and dtypes alone. Default: CPU.
	DisableMmap bool         // read the file instead of mapping it
}

// LoadStateDict gives all tensors of a file of weights, of any format, by name: on the CPU views of the mapped file
// where it holds them aligned. The caller closes them; the file stays mapped until then. Of what a training script
// saved it gives the model's weights. (transformers.modeling_utils.load_state_dict.)
func LoadStateDict(ctx context.Context, path string, opts LoadStateDictOptions) (_ map[string]*torch.Tensor, err error) {
	c, err := checkpoint.Open(path, checkpoint.OpenOptions{StateDict: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	device := Options{Device: opts.MapLocation}.device()
	tensors := map[string]*torch.Tensor{}
	defer func() {
		if err != nil {
			for _, t := range tensors {
				t.Close()
			}
		}
	}()
	for f, info := range c.All() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		info, dtype := packed(info)
		p := newPart(source{file: f.File, TensorInfo: info}, whole(info.Shape).copyInto())
		if dtype != 0 {
			p.dtype, p.FileBytes = dtype, int64(info.Bytes)
		}
		if p.dtype == 0 {
			return nil, &Error{Class: ErrUnsupported, File: path, Tensor: info.Name, Detail: "dtype", Actual: info.DType.String()}
		}
		t, err := p.whole(ctx, info, device, opts.DisableMmap)
		if err != nil {
			var te *torch.Error
			if errors.As(err, &te) {
				err = &Error{File: path, Tensor: info.Name, Err: err}
			}
			return nil, err
		}
		tensors[info.Name] = t
	}
	return tensors, nil
}

// packed is a tensor of elements smaller than a byte as torch has it: two F4 in one float4_e2m1fn_x2, others, for which
// torch has no dtype, as their bytes.
func packed(info checkpoint.TensorInfo) (checkpoint.TensorInfo, torch.DType) {
	if info.DType.Bits()%8 == 0 {
		return info, 0
	}
	if last := len(info.Shape) - 1; info.DType == safetensors.F4 && last >= 0 && info.Shape[last]%2 == 0 {
		info.Shape = slices.Clone(info.Shape)
		info.Shape[last] /= 2
		return info, torch.Float4E2M1FNX2
	}
	info.Shape = []int{info.Bytes}
	return info, torch.Uint8
}

// whole is a tensor that one part is all of.
func (p *Part) whole(ctx context.Context, info checkpoint.TensorInfo, device torch.Device, disableMmap bool) (t *torch.Tensor, err error) {
	empty := func(d torch.Device) (*torch.Tensor, error) {
		return torch.Try(func() *torch.Tensor { return torch.Empty(info.Shape, torch.EmptyOptions{DType: p.dtype, Device: d}) })
	}
	switch {
	case device == torch.Meta:
		return empty(device)
	case !disableMmap && info.Aligned() && info.Bytes > 0:
		t, err = p.view(info.Shape)
	default:
		if t, err = empty(torch.CPU); err != nil {
			return nil, err
		}
		if err = p.read(ctx, t, new(stages), func(int64) {}); err != nil {
			t.Close()
			return nil, err
		}
	}
	if err != nil || device == torch.CPU {
		return t, err
	}
	defer t.Close()
	return torch.Try(func() *torch.Tensor { return t.To(device) })
}

// RemoveTiedWeightsFromStateDict drops from a state dict the names of tied tensors whose source is in it, too,
// as saving does. Tensors that share memory otherwise are an error. (transformers' function of that name.)
func RemoveTiedWeightsFromStateDict(state map[string]*torch.Tensor, m Model) (map[string]*torch.Tensor, error) {
	var entries []entry
	for name, t := range state {
		entries = append(entries, entry{name, t})
	}
	entries, err := withoutTies(entries, m.base().classTies())
	if err != nil {
		return nil, err
	}
	out := map[string]*torch.Tensor{}
	for _, e := range entries {
		out[e.name] = e.tensor
	}
	return out, nil
}

// StrToTorchDType is the dtype of a safetensors code such as BF16 (transformers' str_to_torch_dtype, and the codes
// that it lacks).
func StrToTorchDType(code string) (torch.DType, error) {
	if d, err := safetensors.ParseDType(code); err == nil && dtypeOf(d) != 0 {
		return dtypeOf(d), nil
	}
	return 0, &Error{Class: ErrBadDType, Detail: "no dtype of torch holds safetensors of " + strings.ToValidUTF8(fmt.Sprintf("%q", shorten(code)), "?")}
}

type quantizedState struct{}

// SetQuantizedState marks a context as that of work on a quantized model; it ends with the context. Loading in it
// is refused until quantized models can be loaded. (transformers' set_quantized_state, which marks the process.)
func SetQuantizedState(ctx context.Context) context.Context {
	return context.WithValue(ctx, quantizedState{}, true)
}

// IsQuantizedState tells whether SetQuantizedState marked a context.
func IsQuantizedState(ctx context.Context) bool { return ctx.Value(quantizedState{}) == true }
