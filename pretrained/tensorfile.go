package pretrained

import (
	"context"
	"io"
	"maps"
	"slices"

	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
)

// LoadFile reads all tensors of a safetensors file into CPU memory (safetensors.torch.load_file).
func LoadFile(ctx context.Context, path string) (map[string]*torch.Tensor, error) {
	return LoadStateDict(ctx, path, LoadStateDictOptions{DisableMmap: true})
}

// SaveFile writes tensors to a safetensors file, which appears when it is complete
// (safetensors.torch.save_file). metadata may be nil.
func SaveFile(ctx context.Context, path string, tensors map[string]*torch.Tensor, metadata map[string]string) error {
	var sources []safetensors.Source
	for _, name := range slices.Sorted(maps.Keys(tensors)) {
		t := tensors[name]
		code, ok := codeOf(t.DType())
		if t.DType() == torch.Float4E2M1FNX2 && t.Dim() > 0 {
			code, ok = safetensors.F4, true
		}
		if !ok {
			return &Error{Class: ErrUnsupported, File: path, Tensor: name, Detail: "dtype has no form in safetensors", Actual: t.DType().String()}
		}
		shape := t.Shape()
		if code == safetensors.F4 && len(shape) > 0 { // two to an element
			shape[len(shape)-1] *= 2
		}
		sources = append(sources, safetensors.Source{
			Name: name, DType: code, Shape: shape, Write: func(w io.Writer) error { return write(w, func() (*torch.Tensor, error) { return t, nil }) },
		})
	}
	return safetensors.WriteFile(ctx, path, sources, metadata)
}
