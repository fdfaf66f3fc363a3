package pickle

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// The format of torch 0.1: a tar archive of the files storages, tensors and pickle. Its object refers to tensors and storages
// by their numbers.

const tarBlock = 512

// isTar reports whether a file begins with the header of a tar member: its checksum is right.
func isTar(head []byte) bool {
	if len(head) < tarBlock {
		return false
	}
	want, err := octal(head[148:156])
	sum := int64(8 * ' ')
	for i, b := range head[:tarBlock] {
		if i < 148 || i >= 156 {
			sum += int64(b)
		}
	}
	return err == nil && want == sum
}

// octal is a number in a header.
func octal(p []byte) (int64, error) {
	return strconv.ParseInt(strings.Trim(string(p), " \x00"), 8, 63)
}

type member struct{ offset, end int64 }

// members reads the headers of a tar archive.
func (f *File) members() (map[string]member, error) {
	found := map[string]member{}
	for at := int64(0); ; {
		if at == f.Size() {
			return found, nil // some writers leave out the two blocks of zeros
		}
		head, err := newSource(f.File, at, f.Size()).next(tarBlock, "header of a member")
		if err != nil {
			return nil, err
		}
		if len(bytes.Trim(head, "\x00")) == 0 {
			return found, nil
		}
		if !isTar(head) {
			return nil, &Error{Class: ErrChecksum, Offset: at, Detail: "header of a member"}
		}
		name := strings.TrimPrefix(string(bytes.TrimRight(head[:100], "\x00")), "./")
		size, err := octal(head[124:136])
		if err != nil || size < 0 {
			return nil, &Error{Class: ErrBadHeader, Offset: at, Detail: "size of a member", Actual: fmt.Sprintf("%q", head[124:136])}
		}
		at += tarBlock
		if size > f.Size()-at {
			return nil, &Error{Class: ErrTruncated, Offset: at, Detail: fmt.Sprintf("member %q", name), Expected: fmt.Sprintf("%d bytes", size), Actual: fmt.Sprint(f.Size() - at)}
		}
		switch name {
		case "storages", "tensors", "pickle":
			if kind := head[156]; kind != '0' && kind != 0 {
				return nil, &Error{Class: ErrNotRegular, Offset: at - tarBlock, Detail: fmt.Sprintf("member %q", name), Expected: "a file", Actual: fmt.Sprintf("type %q", kind)}
			}
			if _, dup := found[name]; dup {
				return nil, &Error{Class: ErrDuplicate, Offset: at - tarBlock, Detail: fmt.Sprintf("member %q", name)}
			}
			found[name] = member{at, at + size}
		}
		if at += (size + tarBlock - 1) / tarBlock * tarBlock; at > f.Size() {
			return nil, &Error{Class: ErrTruncated, Offset: f.Size(), Detail: fmt.Sprintf("member %q", name), Expected: "full blocks"}
		}
	}
}

func (f *File) readTar(o Options) error {
	found, err := f.members()
	if err != nil {
		return err
	}
	for _, name := range []string{"storages", "tensors", "pickle"} {
		if _, ok := found[name]; !ok {
			return &Error{Class: ErrBadHeader, Detail: "members of the archive", Expected: "storages, tensors and pickle", Actual: "no " + name}
		}
	}
	b := builder{file: f}
	t := tarReader{builder: &b, file: f, keep: o.KeepUnknown, objects: map[int64]Value{}}
	if err := t.storages(found["storages"]); err != nil {
		return err
	}
	if err := t.tensors(found["tensors"]); err != nil {
		return err
	}
	m := t.machine(found["pickle"])
	m.persistent = func(id Value) (Value, error) {
		if class, ok := id.(Tuple); ok && o.KeepUnknown && len(class) > 0 {
			return class[0], nil // a class with its source code
		}
		return t.object(m, id)
	}
	f.root, err = m.run()
	return err
}

// tarReader has the storages and tensors of an archive by their numbers.
type tarReader struct {
	*builder
	file    *File
	keep    bool
	objects map[int64]Value
}

func (t *tarReader) machine(at member) *machine {
	return &machine{src: newSource(t.file.File, at.offset, at.end), cut: ErrBadPickle, keep: t.keep, tensor: t.countTensor}
}

// number is a key: Python's id of the object, as an int or, in a persistent id, as its digits.
func number(v Value) (n int64, ok bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case string:
		n, err := strconv.ParseInt(v, 10, 64)
		return n, err == nil
	}
	return 0, false
}

func (t *tarReader) object(m *machine, id Value) (Value, error) {
	if n, ok := number(id); ok {
		if v, ok := t.objects[n]; ok {
			return v, nil
		}
	}
	return nil, m.fail(ErrBadStorage, "number of a tensor or storage", "one in the archive", brief(id))
}

func (t *tarReader) add(m *machine, id, v Value) error {
	n, ok := number(id)
	if !ok {
		return m.fail(ErrBadArgs, "number of a tensor or storage", "an int", kindOf(id))
	}
	if _, dup := t.objects[n]; dup {
		return m.fail(ErrDuplicate, "number of a tensor or storage", "", brief(id))
	}
	t.objects[n] = v
	return nil
}

// count is a pickle with the number of what follows; each takes at least a byte.
func (t *tarReader) count(m *machine, what string) (int64, error) {
	v, err := m.run()
	if err != nil {
		return 0, err
	}
	n, ok := v.(int64)
	if !ok || n < 0 || n > m.src.end-m.src.pos {
		return 0, m.fail(ErrBadHeader, "number of "+what, fmt.Sprintf("0 to %d", m.src.end-m.src.pos), brief(v))
	}
	return n, nil
}

// triple is a pickle of a tuple of three.
func (t *tarReader) triple(m *machine) (Tuple, error) {
	v, err := m.run()
	if err != nil {
		return nil, err
	}
	vs, ok := v.(Tuple)
	if !ok || len(vs) != 3 {
		return nil, m.fail(ErrBadArgs, "", "a tuple of 3", kindOf(v))
	}
	return vs, nil
}

// storages: their number, then for each (number, location, class), the number of its elements, and they; then the list of views of
// them, (number, number of the storage, offset, elements).
func (t *tarReader) storages(at member) error {
	m := t.machine(at)
	n, err := t.count(m, "storages")
	if err != nil {
		return err
	}
	for range n {
		vs, err := t.triple(m)
		if err != nil {
			return err
		}
		location, ok := vs[1].(string)
		class, ok2 := vs[2].(*Opaque)
		if !ok || !ok2 || class.call == nil || class.call.dtype == "" {
			return m.fail(ErrBadArgs, "storage", "(number, location, class)", fmt.Sprintf("(%s, %s, %s)", kindOf(vs[0]), kindOf(vs[1]), kindOf(vs[2])))
		}
		if !knownLocation(location) {
			return m.fail(ErrBadStorage, "location of a storage", "a device of torch", fmt.Sprintf("%.40q", location))
		}
		p, err := m.src.next(8, "number of elements of a storage")
		if err != nil {
			return err
		}
		size := int64(dtypes[class.call.dtype].bytes)
		left := m.src.end - m.src.pos
		count := int64(le.Uint64(p))
		if count < 0 || count > left/size {
			return m.fail(ErrBadStorage, "number of elements of a storage", fmt.Sprintf("0 to %d", left/size), fmt.Sprint(count))
		}
		s := &Storage{DType: class.call.dtype, Bytes: count * size, Location: location, Key: keyName(vs[0])}
		s.place(t.file.File, m.src.pos, false)
		m.src.pos += s.Bytes
		if err := t.add(m, vs[0], s); err != nil {
			return err
		}
	}
	v, err := m.run()
	if err != nil {
		return err
	}
	list, ok := v.(*List)
	if !ok {
		return m.fail(ErrBadArgs, "views of storages", "a list", kindOf(v))
	}
	for _, v := range list.Items {
		vs, ok := v.(Tuple)
		if !ok || len(vs) != 4 {
			return m.fail(ErrBadArgs, "view of a storage", "a tuple of 4", kindOf(v))
		}
		root, err := t.object(m, vs[1])
		if err != nil {
			return err
		}
		base := root.(*Storage)
		at, ok := vs[2].(int64)
		n, ok2 := vs[3].(int64)
		size := int64(dtypes[base.DType].bytes)
		if have := base.Bytes / size; !ok || !ok2 || at < 0 || n < 0 || at > have || n > have-at {
			return m.fail(ErrBounds, "view of a storage", fmt.Sprintf("in %d elements", have), brief(vs[3])+" from "+brief(vs[2]))
		}
		s := &Storage{DType: base.DType, Bytes: n * size, Location: base.Location, Key: keyName(vs[0])}
		s.place(t.file.File, base.Offset+at*size, false)
		if err := t.add(m, vs[0], s); err != nil {
			return err
		}
	}
	return nil
}

// tensors: their number, then for each (number, number of its storage, class), dimensions, sizes, strides and offset.
func (t *tarReader) tensors(at member) error {
	m := t.machine(at)
	n, err := t.count(m, "tensors")
	if err != nil {
		return err
	}
	for range n {
		vs, err := t.triple(m)
		if err != nil {
			return err
		}
		v, err := t.object(m, vs[1])
		if err != nil {
			return err
		}
		s, ok := v.(*Storage)
		if !ok {
			return m.fail(ErrBadArgs, "tensor", "the number of a storage", kindOf(v))
		}
		p, err := m.src.next(8, "dimensions")
		if err != nil {
			return err
		}
		dims := int64(int32(le.Uint32(p))) // the other four bytes mean nothing
		if dims < 0 || dims > 64 {
			return m.fail(ErrBadShape, "dimensions", "0 to 64", fmt.Sprint(dims))
		}
		if p, err = m.src.next(16*dims+8, "sizes, strides and offset"); err != nil {
			return err
		}
		numbers := make(Tuple, 2*dims+1)
		for i := range numbers {
			numbers[i] = int64(le.Uint64(p[8*i:]))
		}
		tensor, err := m.view(s, s.DType, Tuple{numbers[2*dims], numbers[:dims], numbers[dims : 2*dims]})
		if err != nil {
			if e, is := err.(*Error); is && e.Offset == 0 {
				e.Offset = m.op
			}
			return err
		}
		if err := t.add(m, vs[0], tensor); err != nil {
			return err
		}
	}
	return nil
}
