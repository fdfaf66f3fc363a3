package pickle

import (
	"fmt"
	"math/big"

	"github.com/torchgo/torchgo/internal/weights"
)

// The format before torch 1.6: pickles of a magic number, the version of the protocol, facts about the writer, the object, and the
// keys of its storages; then each storage, its number of elements before it.

var legacyMagic, _ = new(big.Int).SetString("1950a86a20f9469cfc6c", 16)

const legacyProtocol = 1001

func (f *File) readLegacy(o Options) error {
	b := builder{file: f, storages: map[string]*Storage{}}
	m := &machine{src: newSource(f.File, 0, f.Size()), cut: ErrTruncated, keep: o.KeepUnknown, tensor: b.countTensor}
	magic, err := m.run()
	if err != nil {
		return err
	}
	if n, ok := magic.(*big.Int); !ok || n.Cmp(legacyMagic) != 0 {
		return &Error{Class: ErrBadMagic, Expected: wanted, Actual: "a pickle that torch.save didn't write"}
	}
	version, err := m.run()
	if err != nil {
		return err
	}
	if version != int64(legacyProtocol) {
		return m.fail(ErrUnsupportedVersion, "protocol of torch.save", fmt.Sprint(legacyProtocol), brief(version))
	}
	info, err := m.run() // byte order and sizes of C types of the writer; torch writes little-endian whatever it says, and ignores it
	if err != nil {
		return err
	}
	if _, ok := info.(*Dict); !ok {
		return m.fail(ErrBadHeader, "facts about the writer", "a dict", kindOf(info))
	}

	views := map[string]*storageView{}
	m.persistent = func(id Value) (Value, error) {
		s, err := b.storage(m, id, 6)
		if err != nil {
			return nil, err
		}
		pid := id.(Tuple)
		if pid[5] == nil {
			return s, nil
		}
		return s.view(m, pid[5], views)
	}
	if f.root, err = m.run(); err != nil {
		return err
	}

	m.persistent = nil
	keys, err := m.run()
	if err != nil {
		return err
	}
	list, ok := keys.(*List)
	if !ok {
		return m.fail(ErrBadPickle, "keys of the storages", "a list", kindOf(keys))
	}
	at := m.src.pos
	placed := map[string]bool{}
	for _, k := range list.Items {
		key, ok := k.(string)
		s := b.storages[key]
		if !ok || s == nil {
			return m.fail(ErrBadStorage, "keys of the storages", "one that the object uses", brief(k))
		}
		if placed[key] {
			return m.fail(ErrDuplicate, fmt.Sprintf("storage %q", key), "", "")
		}
		placed[key] = true
		if at, err = s.read(f.File, at, f.Size()); err != nil {
			return err
		}
	}
	for key, s := range b.storages {
		if !placed[s.Key] {
			return m.fail(ErrBadStorage, fmt.Sprintf("storage %q", s.Key), "its bytes after the object", "none")
		}
		if first := b.storages[s.Key]; key != s.Key { // the same bytes as another dtype
			s.place(f.File, first.Offset, false)
		}
	}
	for _, v := range views {
		v.Storage.place(f.File, v.base.Offset+v.at, false)
	}
	return nil
}

// read finds a storage's bytes at byte at of the file, after their number, and returns where they end.
func (s *Storage) read(f *weights.File, at, end int64) (int64, error) {
	size := int64(max(1, dtypes[s.DType].bytes))
	p, err := newSource(f, at, end).next(8, fmt.Sprintf("storage %q", s.Key))
	if err != nil {
		return 0, err
	}
	n := int64(le.Uint64(p))
	at += 8
	if n != s.Bytes/size {
		return 0, &Error{Class: ErrBadStorage, Offset: at - 8, Detail: fmt.Sprintf("storage %q", s.Key), Expected: fmt.Sprintf("%d elements, as the object says", s.Bytes/size), Actual: fmt.Sprint(n)}
	}
	if s.Bytes > end-at {
		return 0, &Error{Class: ErrTruncated, Offset: at, Detail: fmt.Sprintf("storage %q", s.Key), Expected: fmt.Sprintf("%d bytes", s.Bytes), Actual: fmt.Sprint(end - at)}
	}
	s.place(f, at, false)
	return at + s.Bytes, nil
}

// storageView is a storage that is a part of another.
type storageView struct {
	*Storage
	base *Storage
	at   int64 // in bytes
}

// view is the part of a storage that its persistent id names: (key, offset, number of elements).
func (s *Storage) view(m *machine, id Value, views map[string]*storageView) (*Storage, error) {
	vs, ok := id.(Tuple)
	if !ok || len(vs) != 3 {
		return nil, m.fail(ErrBadArgs, "view of a storage", "(key, offset, number of elements)", kindOf(id))
	}
	key, ok := vs[0].(string)
	at, ok2 := vs[1].(int64)
	n, ok3 := vs[2].(int64)
	if !ok || !ok2 || !ok3 {
		return nil, m.fail(ErrBadArgs, "view of a storage", "(key, offset, number of elements)", fmt.Sprintf("(%s, %s, %s)", kindOf(vs[0]), kindOf(vs[1]), kindOf(vs[2])))
	}
	size := int64(max(1, dtypes[s.DType].bytes))
	if have := s.Bytes / size; at < 0 || n < 0 || at > have || n > have-at {
		return nil, m.fail(ErrBounds, "view of a storage", fmt.Sprintf("in %d elements", have), fmt.Sprintf("%d from %d", n, at))
	}
	v := views[key]
	if v == nil {
		v = &storageView{&Storage{DType: s.DType, Bytes: n * size, Location: s.Location, Key: key}, s, at * size}
		views[key] = v
	}
	if v.base != s || v.at != at*size || v.Bytes != n*size {
		return nil, m.fail(ErrBadStorage, fmt.Sprintf("view %.100q of a storage", key), "the same place each time", "")
	}
	return v.Storage, nil
}
