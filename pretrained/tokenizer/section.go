package tokenizer

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/strictjson"
)

// Classes of errors of files, for errors.Is; those of JSON itself are other ones.
var (
	ErrUnsupported = fileerr.ErrUnsupported // a component of tokenizer.json that this package lacks
	ErrBadConfig   = fileerr.ErrBadConfig   // contents that can't be, or contradict themselves
	ErrNotRegular  = fileerr.ErrNotRegular  // not a regular file
	ErrLimit       = fileerr.ErrLimit       // a file that is too large
)

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrBadConfig, fmt.Sprintf(format, args...))
}

// unsupported is the error for a component of a type that is not built.
func unsupported(section, kind string) error {
	return fmt.Errorf("%s: %w: type %q", section, ErrUnsupported, clip(kind))
}

// section is one JSON object of a tokenizer file, with its name for messages.
type section struct {
	*strictjson.Object
	name string
}

func asSection(v strictjson.Value, name string) (section, error) {
	o, err := v.AsObject()
	if err != nil {
		return section{}, fmt.Errorf("%s: %w", name, err)
	}
	return section{o, name}, nil
}

// component reads an object with a "type".
func component(v strictjson.Value, name string) (section, string, error) {
	o, err := asSection(v, name)
	if err != nil {
		return o, "", err
	}
	var kind string
	err = o.fields(map[string]any{"type": &kind})
	return o, kind, err
}

// fields stores members into pointers: *bool, *string and *int must be there; **bool and **int may be null
// or absent.
func (s section) fields(into map[string]any) error {
	for _, name := range slices.Sorted(maps.Keys(into)) { // in order, for one message each time
		p := into[name]
		v, ok := s.Get(name)
		var err error
		switch p := p.(type) {
		case **bool:
			if ok && !v.IsNull() {
				var b bool
				b, err = v.AsBool()
				*p = &b
			}
		case **int:
			if ok && !v.IsNull() {
				var i int
				i, err = asCount(v)
				*p = &i
			}
		default:
			if !ok {
				return invalid("%s: no %q", s.name, name)
			}
			switch p := p.(type) {
			case *bool:
				*p, err = v.AsBool()
			case *string:
				*p, err = v.AsString()
			case *int:
				*p, err = asCount(v)
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %s: %w", s.name, name, err)
		}
	}
	return nil
}

// each calls f for the elements of an array member.
func (s section) each(name string, f func(strictjson.Value) error) error {
	v, ok := s.Get(name)
	if !ok {
		return invalid("%s: no %q", s.name, name)
	}
	items, err := v.AsArray()
	if err != nil {
		return fmt.Errorf("%s: %s: %w", s.name, name, err)
	}
	for _, item := range items {
		if err := f(item); err != nil {
			return err
		}
	}
	return nil
}

// asCount reads an integer from 0 to 2^31-1: an id, a type id, a length.
func asCount(v strictjson.Value) (int, error) {
	i, err := v.AsInt()
	if err == nil && (i < 0 || i > math.MaxInt32) {
		err = invalid("%d is not in [0, 2^31)", i)
	}
	return int(i), err
}

// maxComponents bounds a Sequence, each of whose members goes over the text.
const maxComponents = 64

// components is each for the members of a Sequence.
func (s section) components(name string, f func(strictjson.Value) error) error {
	n := 0
	return s.each(name, func(v strictjson.Value) error {
		if n++; n > maxComponents {
			return invalid("%s: %s: more than %d components", s.name, name, maxComponents)
		}
		return f(v)
	})
}
