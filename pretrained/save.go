package pretrained

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/torchgo/torchgo/internal/atomicfile"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// SaveOptions are the arguments of save_pretrained.
type SaveOptions struct {
	MaxShardSize string // "5GB", in powers of 1000; default "50GB"
	Variant      string // write model.<Variant>.safetensors
}

// SavePretrained writes config.json and the weights of m into dir, which it makes if need be: one
// model.safetensors, or shards and their index where they are larger than MaxShardSize. Of tied weights the
// source is written. Each file is complete before it takes its name, so that saving over the directory that
// m was loaded from is safe, and a failed save leaves the former files.
func SavePretrained(ctx context.Context, m Model, dir string, opts SaveOptions) error {
	if st, err := os.Stat(dir); err == nil && !st.IsDir() {
		return &Error{File: dir, Class: ErrArgument, Expected: "a directory", Actual: "a file"}
	}
	shard := safetensors.ShardOptions{Variant: opts.Variant, Metadata: map[string]string{"format": "pt"}, TotalParameters: m.NumParameters()}
	if opts.MaxShardSize != "" {
		var err error
		if shard.MaxShardBytes, err = safetensors.ParseSize(opts.MaxShardSize); err != nil {
			return &Error{Class: ErrArgument, Detail: "max shard size", Err: err}
		}
	}
	tensors, err := sources(m)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return &Error{File: dir, Err: pathCause(err)}
	}
	config := filepath.Join(dir, "config.json")
	f, err := atomicfile.Create(config, 0o666)
	if err != nil {
		return &Error{File: config, Err: pathCause(err)}
	}
	defer f.Abort()
	_, err = f.Write(configJSON(m.Config(), map[string]any{"architectures": []string{m.Class()}, "dtype": m.DType().String()}))
	if err == nil {
		err = f.Finish()
	}
	if err != nil {
		return &Error{File: config, Err: pathCause(err)}
	}
	if _, err := safetensors.WriteSharded(ctx, dir, tensors, shard); err != nil {
		return err
	}
	if err := f.Commit(); err != nil {
		return &Error{File: config, Err: pathCause(err)}
	}
	return nil
}

// sources are the tensors of m that are to be written, in the order of the state dict.
func sources(m Model) ([]safetensors.Source, error) {
	p := m.base()
	var out []safetensors.Source
	type memory struct {
		at uintptr
		n  int
	}
	first := map[memory]string{}
	for name, t := range nn.StateDict(m) {
		if _, tied := p.ties[name]; tied || slices.Contains(p.class.IgnoreOnSave, name) {
			continue
		}
		if t.Numel() > 0 && t.Device() != torch.Meta {
			at := memory{uintptr(t.DataPtr()), t.NumBytes()}
			if other, shared := first[at]; shared && t.IsContiguous() {
				return nil, &Error{Tensor: name, Class: ErrConflict, Detail: "shares its memory with " + other + ", but the two are not declared as tied"}
			}
			first[at] = name
		}
		d, ok := codeOf(t.DType())
		if !ok {
			return nil, &Error{Tensor: name, Class: ErrBadDType, Expected: "a dtype of the safetensors format", Actual: t.DType().String()}
		}
		if t.Device() == torch.Meta {
			return nil, &Error{Tensor: name, Class: ErrMissingTensor, Detail: "it has no data (device meta)"}
		}
		out = append(out, safetensors.Source{Name: name, DType: d, Shape: t.Shape(), Write: func(w io.Writer) error { return write(w, t) }})
	}
	return out, nil
}

// write writes the elements of t in order.
func write(w io.Writer, t *torch.Tensor) (err error) {
	tryErr := torch.TryDo(func() {
		torch.Scope(func() {
			torch.NoGrad(func() { _, err = w.Write(t.To(torch.CPU).Contiguous().Bytes()) })
		})
	})
	if err == nil && tryErr != nil {
		err = tryErr
	}
	return err
}
