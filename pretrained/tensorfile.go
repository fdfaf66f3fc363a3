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
		if !ok {
			return &Error{Class: ErrUnsupported, File: path, Tensor: name, Detail: "dtype has no form in safetensors", Actual: t.DType().String()}
		}
		sources = append(sources, safetensors.Source{
			Name: name, DType: code, Shape: t.Shape(), Write: func(w io.Writer) error { return write(w, func() (*torch.Tensor, error) { return t, nil }) },
		})
	}
	return safetensors.WriteFile(ctx, path, sources, metadata)
}
