package pretrained

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/torch"
)

// verdict refuses a plan that can't be carried out, or that the options forbid.
func (l *loader) verdict() error {
	p, path := l.plan, l.path()
	if total := physicalMemory(); total > 0 && p.BytesAllocated > total {
		return &Error{File: l.files.config, Class: ErrLimit, Detail: "memory of the model", Expected: bytesText(total) + " at most", Actual: bytesText(p.BytesAllocated)}
	}
	if err := l.checkMemory(); err != nil {
		return err
	}
	if err := l.checkFolder(); err != nil {
		return err
	}
	errs := slices.Clone(l.broken)
	if len(p.MismatchedKeys) > 0 && (l.opts.Strict || !l.opts.IgnoreMismatchedSizes) {
		m := p.MismatchedKeys[0]
		e := &Error{File: path, Tensor: m.Key, Class: ErrSizeMismatch, Detail: l.absent[m.Key], Expected: torch.Shape(m.Model).String(), Actual: torch.Shape(m.Checkpoint).String()}
		if n := len(p.MismatchedKeys); n > 1 {
			e.Remedy = fmt.Sprintf("%d tensors differ", n)
		}
		if !l.opts.Strict {
			e.Remedy = strings.TrimPrefix(e.Remedy+"; ignore mismatched sizes to initialise them anew", "; ")
		}
		errs = append(errs, e)
	}
	if l.opts.Strict && len(p.MissingKeys) > 0 {
		errs = append(errs, &Error{File: path, Class: ErrMissingTensor, Detail: listKeys(p.MissingKeys)})
	}
	if l.opts.Strict && len(p.UnexpectedKeys) > 0 {
		errs = append(errs, &Error{File: path, Class: ErrUnexpected, Detail: listKeys(p.UnexpectedKeys)})
	}
	return errors.Join(errs...)
}

// listKeys names the first keys of a sorted list and counts the rest.
func listKeys(keys []string) string {
	const most = 20
	if len(keys) <= most {
		return strings.Join(keys, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(keys[:most], ", "), len(keys)-most)
}
