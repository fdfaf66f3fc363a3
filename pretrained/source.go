package pretrained

import (
	"cmp"
	"iter"
	"path/filepath"

	"github.com/torchgo/torchgo/internal/weights"
	"github.com/torchgo/torchgo/torch"
)

// source is a tensor to load: of a file, or of the caller's state dict.
type source struct {
	file   *weights.File
	tensor *torch.Tensor // where there is no file
	weights.TensorInfo
	stored string // the type of a GGUF file's
}

// sources goes over all tensors: file by file, or in the order of the state dict.
func (l *loader) sources() iter.Seq[source] {
	return func(yield func(source) bool) {
		if l.checkpoint == nil {
			for _, s := range l.state {
				if !yield(s) {
					return
				}
			}
			return
		}
		for file, info := range l.checkpoint.All() {
			s := source{file: file.File, TensorInfo: info}
			if file.GGUF != nil {
				stored, _ := file.GGUF.Stored(info.Name)
				s.stored = stored.Type.String()
			}
			if !yield(s) {
				return
			}
		}
	}
}

// useStateDict takes the caller's tensors in place of files.
func (l *loader) useStateDict(path string) error {
	if path != "" {
		return &Error{File: path, Class: ErrArgument, Detail: "both a state dict and a path are given", Remedy: "leave the path empty"}
	}
	l.plan.Path = "state dict"
	seen := map[string]bool{}
	for name, t := range l.opts.StateDict {
		code, ok := codeOf(t.DType())
		switch {
		case seen[name]:
			return &Error{Tensor: name, Class: ErrConflict, Detail: "twice in the state dict"}
		case t.Device() == torch.Meta:
			return &Error{Tensor: name, Class: ErrMissingTensor, Detail: "it has no data (device meta)"}
		case !ok:
			return &Error{Tensor: name, Class: ErrBadDType, Expected: "a dtype of the safetensors format", Actual: t.DType().String()}
		}
		seen[name] = true
		l.state = append(l.state, source{tensor: t, TensorInfo: weights.TensorInfo{Name: name, DType: code, Shape: t.Shape()}})
	}
	l.files = &files{}
	return l.files.readConfig("", l.opts)
}

// path is where the weights come from, for errors.
func (l *loader) path() string {
	if l.checkpoint == nil {
		return l.plan.Path
	}
	return l.checkpoint.Path()
}

func (s source) path() string { return Part{file: s.file}.path() }

func (s source) torchDType() torch.DType { return dtypeOf(s.DType) }

func (p Part) path() string {
	if p.file == nil {
		return "state dict"
	}
	return p.file.Path()
}

func newPart(from source, place blockCopy) Part {
	p := Part{Source: from.Name, FileDType: cmp.Or(from.stored, from.DType.String()), file: from.file, tensor: from.tensor, dtype: from.torchDType(), place: place}
	if p.file != nil {
		p.File = filepath.Base(p.file.Path())
	}
	if p.dtype != 0 {
		p.FileBytes = int64(p.dtype.ItemSize()) * int64(place.numel())
	}
	return p
}

// copyTensor copies a part of the caller's tensor to its place in t.
func (p *Part) copyTensor(t *torch.Tensor, progress func(int64)) error {
	err := torch.TryDo(func() {
		torch.Scope(func() {
			torch.NoGrad(func() {
				p.place.to.view(t, p.place.sizes).Copy_(p.place.from.view(p.tensor.Contiguous(), p.place.sizes))
			})
		})
	})
	if err == nil {
		progress(p.FileBytes)
	}
	return err
}
