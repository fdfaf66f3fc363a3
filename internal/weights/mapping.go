package weights

import (
	"math"
	"os"
	"sync/atomic"

	"github.com/torchgo/torchgo/internal/fileerr"
)

// Mapping is a file in memory. It counts its users: Map and Retain add one, Release takes one away, and
// the last Release unmaps it, after which its bytes must not be touched. It outlives its File.
//
// The pages are private: a write to them is seen by this process alone and never reaches the file. If
// somebody truncates the file, access to the lost pages kills the process with SIGBUS, inside C without
// remedy; ReadTensor returns an error instead.
type Mapping struct {
	file *File
	data []byte
	refs atomic.Int64
}

// Map maps the file, or adds a user to the mapping it has already. It fails if the file changed since Open.
func (f *File) Map() (*Mapping, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mapping != nil && f.mapping.retain() {
		return f.mapping, nil
	}
	if f.f == nil {
		return nil, &Error{Class: fileerr.ErrUnsupported, File: f.path, Detail: "only a file that Open opened can be mapped"}
	}
	if err := f.Unchanged(); err != nil {
		return nil, err
	}
	if f.size > math.MaxInt {
		return nil, &Error{Class: fileerr.ErrUnsupported, File: f.path, Detail: "the file is larger than this host can address"}
	}
	data, err := mapFile(f.f, f.size)
	if err != nil {
		return nil, &Error{File: f.path, Detail: "map", Err: err}
	}
	m := &Mapping{file: f, data: data}
	m.refs.Store(1)
	f.mapping = m
	return m, nil
}

// retain adds a user unless the last one is gone.
func (m *Mapping) retain() bool {
	for {
		n := m.refs.Load()
		if n == 0 {
			return false
		}
		if m.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Retain adds a user. The caller must be one.
func (m *Mapping) Retain() {
	if !m.retain() {
		panic("Retain of an unmapped Mapping")
	}
}

// Release takes a user away; the last one unmaps the file.
func (m *Mapping) Release() error {
	switch n := m.refs.Add(-1); {
	case n > 0:
		return nil
	case n < 0:
		panic("Mapping released more often than retained")
	}
	data := m.data
	m.data = nil
	return unmapFile(data)
}

// Forget gives the memory of a tensor back to the system, as far as no other tensor is in its pages. It is read from
// the file again when it is used, and what was written to it is lost.
func (m *Mapping) Forget(name string) {
	t, err := m.file.find(name)
	if err != nil || !t.Plain() || m.refs.Load() <= 0 {
		return
	}
	page := int64(os.Getpagesize())
	start, end := (t.Offset+page-1)/page*page, (t.Offset+int64(t.Bytes))/page*page
	if start < end {
		dropPages(m.data[start:end])
	}
}

// Tensor is the bytes of a tensor in the mapping: valid until the last Release, and not necessarily
// aligned (see TensorInfo.Aligned). For a BOOL tensor, whose values it checks first, the File must still
// be open.
func (m *Mapping) Tensor(name string) ([]byte, error) {
	t, err := m.file.find(name)
	if err != nil {
		return nil, err
	}
	if !t.Plain() {
		return nil, &Error{Class: fileerr.ErrUnsupported, File: m.file.path, Tensor: name, Detail: "it is not stored as it is read"}
	}
	if m.refs.Load() <= 0 {
		return nil, &Error{File: m.file.path, Tensor: name, Detail: "the file is not mapped any more", Err: os.ErrClosed}
	}
	if t.DType == BOOL {
		if err := m.file.checkAllBools(t); err != nil {
			return nil, err
		}
	}
	end := t.Offset + int64(t.Bytes)
	return m.data[t.Offset:end:end], nil
}
