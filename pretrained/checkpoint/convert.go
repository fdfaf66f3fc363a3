package checkpoint

import (
	"context"
	"io"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/pretrained/pickle"
	"github.com/torchgo/torchgo/pretrained/safetensors"
)

// Convert writes the weights of a checkpoint of any format, as OpenOptions.StateDict takes them, to one file of another:
// Safetensors or Pickle. Names, dtypes and shapes stay; GGUF's blocks become float32. The file appears when it is
// complete; src may be dst. It needs no model, and no libtorch.
func Convert(ctx context.Context, src, dst string, to Format) (err error) {
	c, err := Open(src, OpenOptions{StateDict: true})
	if err != nil {
		return err
	}
	defer c.Close()
	switch to {
	case Safetensors:
		var sources []safetensors.Source
		for f, t := range c.All() {
			sources = append(sources, safetensors.Source{Name: t.Name, DType: t.DType, Shape: t.Shape, Write: func(w io.Writer) error {
				_, err := io.CopyBuffer(struct{ io.Writer }{w}, io.NewSectionReader(bytesOf{f, t}, 0, int64(t.Bytes)), make([]byte, min(t.Bytes+1, 1<<20)))
				return err
			}})
		}
		return safetensors.WriteFile(ctx, dst, sources, map[string]string{"format": "pt"})
	case Pickle:
		state := &pickle.Dict{Class: pickle.OrderedDict}
		for f, t := range c.All() {
			x, err := pickle.Contiguous(t, bytesOf{f, t})
			if err != nil {
				return err
			}
			if err := state.Set(t.Name, x); err != nil {
				return err
			}
		}
		return pickle.WriteFile(ctx, dst, state)
	}
	return &Error{Class: fileerr.ErrUnsupported, File: dst, Detail: "writing " + string(to) + " needs a model", Remedy: "convert the model's folder"}
}

// bytesOf are the bytes of a tensor, contiguous, whatever the file has.
type bytesOf struct {
	f *File
	t TensorInfo
}

func (b bytesOf) ReadAt(p []byte, off int64) (int, error) {
	n := min(int64(len(p)), max(int64(b.t.Bytes)-off, 0))
	if err := b.f.ReadPart(b.t.Name, p[:n], int(off)); err != nil {
		return 0, err
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}
