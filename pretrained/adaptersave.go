package pretrained

import (
	"context"
	"io"
	"strings"

	"github.com/torchgo/torchgo/pretrained/peft"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
)

// saveAdapter writes the active adapter in peft's format: adapter_config.json and adapter_model.safetensors. Both are
// whole and on the disk before the first one takes its name, the weights'; so a crash between the two leaves the new
// weights beside the old config.
func saveAdapter(ctx context.Context, m Model, dir string, opts SaveOptions) (err error) {
	p := m.base()
	active := p.ActiveAdapters()
	switch {
	case len(active) > 1:
		return &Error{File: dir, Class: ErrUnsupported, Detail: "saving several active adapters (" + strings.Join(active, ", ") + ")",
			Remedy: "make one after the other the active one (SetAdapter) and save it"}
	case !opts.SafeSerialization.Or(true):
		return &Error{File: dir, Class: ErrUnsupported, Detail: "an adapter in PyTorch's own format", Remedy: "leave SafeSerialization true, or save the model itself (BaseModel)"}
	case opts.Compress:
		return &Error{File: dir, Class: ErrArgument, Detail: "compressing an adapter", Remedy: "leave Compress false, or save the model itself (BaseModel)"}
	case len(active) == 0:
		return &Error{File: dir, Class: ErrArgument, Detail: "no adapter is active", Remedy: "choose one (SetAdapter), or save the model itself (BaseModel)"}
	}
	config := p.Adapters.Config(active[0]).Clone()
	config.InferenceMode = true
	var sources []safetensors.Source
	prefix := "base_model.model."
	if !opts.SavePeftFormat.Or(true) {
		prefix = ""
	}
	state, err := p.Adapters.StateDict(active[0])
	if err != nil {
		return inFile(err, dir)
	}
	var bad error
	closed := torch.TryDo(func() {
		for name, t := range state {
			code, ok := codeOf(t.DType())
			switch {
			case !ok:
				bad = &Error{Class: ErrBadDType, Tensor: name, Expected: "a dtype of the safetensors format", Actual: t.DType().String()}
			case t.Device() == torch.Meta:
				bad = &Error{Class: ErrMissingTensor, Tensor: name, Detail: "it has no data (device meta), or is offloaded"}
			}
			sources = append(sources, safetensors.Source{Name: prefix + name, DType: code, Shape: t.Shape(),
				Write: func(w io.Writer) error { return write(w, func() (*torch.Tensor, error) { return t, nil }) }})
		}
	})
	if closed != nil {
		return &Error{File: dir, Class: ErrArgument, Detail: "saving an adapter", Err: closed}
	}
	if bad != nil {
		return inFile(bad, dir)
	}
	if opts.Progress != nil {
		reportWrites(sources, opts.Progress)
	}
	var documents []safetensors.Document
	if opts.SavePeftFormat.Or(true) {
		documents = append(documents, safetensors.Document{Name: peft.ConfigName, Data: config.JSON()})
	}
	return inFolder(dir, func() error {
		return safetensors.WriteBeside(ctx, dir, adapterWeights, sources, map[string]string{"format": "pt"}, documents...)
	})
}
