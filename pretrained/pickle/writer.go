package pickle

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"math/bits"
	"strconv"

	"github.com/torchgo/torchgo/internal/atomicfile"
	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/weights"
)

// WriteFile writes a value as torch.save of version 2.15 does, byte for byte but for an identification that no reader
// needs: a zip archive that torch.load(weights_only=True) reads, mmap=True included, since version 1.6 for dtypes
// that are as old. It takes what such a load gives and nothing else; the error is ErrUnsupported for opaque values,
// frozen sets and quantized tensors. Tensors that share a *[Storage] share it in the file, too. Storages are read, in
// pieces, when it is their turn.
//
// The file appears under its name when it is complete and on the disk; until then, and on an error, an old file stays.
// An old file is never written to, so storages may be read from a mapping of it.
func WriteFile(ctx context.Context, path string, v Value) error {
	f, err := stage(ctx, path, v, func() (*atomicfile.File, error) { return atomicfile.Create(path, 0o666) })
	if err != nil {
		return err
	}
	defer f.Abort()
	return fileerr.Writing(path, f.Commit())
}

// Write is WriteFile into a stream.
func Write(ctx context.Context, w io.Writer, v Value) error {
	if err := weights.CheckHost(""); err != nil {
		return err
	}
	text, storages, err := dump(v)
	if err != nil {
		return err
	}
	z := &zipWriter{ctx: ctx, w: w}
	for _, r := range []struct {
		name string
		data []byte
	}{{"data.pkl", text}, {".format_version", []byte("1")}, {".storage_alignment", strconv.AppendInt(nil, alignment, 10)}, {"byteorder", []byte("little")}} {
		if err := z.bytes(r.name, r.data); err != nil {
			return err
		}
	}
	for i, s := range storages {
		if err := z.record("data/"+strconv.Itoa(i), s.Bytes, s.write); err != nil {
			return err
		}
	}
	if err := z.bytes("version", []byte("3\n")); err != nil {
		return err
	}
	return z.close()
}

// stage writes the file under a temporary name, which create gives it, and brings it to the disk.
func stage(ctx context.Context, path string, v Value, create func() (*atomicfile.File, error)) (_ *atomicfile.File, err error) {
	f, err := create()
	if err != nil {
		return nil, fileerr.Writing(path, err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	err = Write(ctx, w, v)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Finish()
	}
	if err != nil {
		f.Abort()
		return nil, fileerr.Writing(path, err)
	}
	return f, nil
}

// Made is the Data of a storage that only exists while it is written: write writes its bytes, as many as Storage.Bytes
// says. It is called once for each file that the storage goes into, when it is its turn.
func Made(write func(io.Writer) error) io.ReaderAt { return made(write) }

type made func(io.Writer) error

func (made) ReadAt([]byte, int64) (int, error) {
	return 0, &Error{Class: ErrUnsupported, Detail: "a storage that can only be written"}
}

// write writes the bytes of a storage.
func (s *Storage) write(w io.Writer) error {
	if s.Bytes == 0 {
		return nil
	}
	if m, ok := s.Data.(made); ok {
		return m(w)
	}
	buf := make([]byte, min(s.Bytes, 1<<20))
	for at := int64(0); at < s.Bytes; {
		n, err := s.Data.ReadAt(buf[:min(int64(len(buf)), s.Bytes-at)], at)
		if n == 0 && err != nil {
			if err == io.EOF {
				err = &Error{Class: ErrTruncated, Detail: "storage " + s.Key, Expected: fmt.Sprintf("%d bytes", s.Bytes), Actual: fmt.Sprint(at)}
			}
			return err
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

const untyped = "UntypedStorage"

func (p *pickler) tensor(t *Tensor) error {
	if p.again(t) {
		return nil
	}
	switch {
	case dtypes[t.DType].code == 0:
		return &Error{Class: ErrUnsupported, Detail: "a tensor of this dtype", Actual: fmt.Sprintf("%.40q", string(t.DType))}
	case t.Storage == nil || t.Storage.Data == nil && t.Storage.Bytes > 0:
		return &Error{Class: ErrBadStorage, Detail: "the tensor has no data"}
	}
	if err := t.checkBounds(); err != nil {
		return err
	}
	if t.Parameter {
		name := global("torch._utils _rebuild_parameter")
		if t.State != nil {
			name = "torch._utils _rebuild_parameter_with_state"
		}
		p.global(name)
		if t.State != nil {
			p.op(opMark)
		}
		plain := *t
		plain.Parameter, plain.RequiresGrad, plain.State = false, false, nil
		if err := p.tensor(&plain); err != nil {
			return err
		}
		_ = p.save(t.RequiresGrad)
		p.noHooks()
		code := byte(opTuple3)
		if t.State != nil {
			if err := p.save(t.State); err != nil {
				return err
			}
			code = opTuple
		}
		p.op(code)
		p.put(nil)
		p.op(opReduce)
		p.put(t)
		return nil
	}
	rebuild := global("torch._utils _rebuild_tensor_v2")
	if dtypes[t.DType].storage == "" {
		rebuild = "torch._utils _rebuild_tensor_v3"
	}
	if t.State != nil { // the function, the class, the function's arguments, the attributes
		p.global("torch._tensor _rebuild_from_type_v2")
		p.op(opMark)
		p.global(rebuild)
		p.global("torch Tensor")
	} else {
		p.global(rebuild)
	}
	if err := p.view(t); err != nil {
		return err
	}
	if t.State != nil {
		if err := p.save(t.State); err != nil {
			return err
		}
		p.op(opTuple)
		p.put(nil)
	}
	p.op(opReduce)
	p.put(t)
	return nil
}

// view writes the arguments that make a view of a storage.
func (p *pickler) view(t *Tensor) error {
	p.op(opMark)
	if err := p.storage(t.Storage, t.DType); err != nil {
		return err
	}
	p.int(int64(t.Start))
	for _, list := range [][]int{t.Shape, t.Strides} {
		tuple := make(Tuple, len(list))
		for i, n := range list {
			tuple[i] = int64(n)
		}
		_ = p.tuple(tuple)
	}
	_ = p.save(t.RequiresGrad)
	p.noHooks()
	if dtypes[t.DType].storage == "" {
		p.global(global("torch " + t.DType))
	}
	if t.Conj || t.Neg {
		var names []string
		if t.Conj {
			names = append(names, "conj")
		}
		if t.Neg {
			names = append(names, "neg")
		}
		p.op(opEmptyDict)
		p.put(nil)
		_ = p.batches(len(names), true, opSetItem, opSetItems, func(i int) error {
			p.text(names[i], nil)
			p.op(opNewTrue)
			return nil
		})
	}
	p.op(opTuple)
	p.put(nil)
	return nil
}

func (p *pickler) noHooks() {
	p.global("collections OrderedDict")
	p.op(opEmptyTuple, opReduce)
	p.put(nil)
}

// storage writes the reference to a storage, and gives it a key when it comes first.
func (p *pickler) storage(s *Storage, dtype DType) error {
	class, unit := dtypes[dtype].storage+"Storage", int64(dtypes[dtype].bytes)
	if class == "Storage" {
		class, unit = untyped, 1
	}
	key, known := p.keys[s]
	if !known {
		key = storageKey{strconv.Itoa(len(p.storages)), class}
		p.keys[s], p.storages = key, append(p.storages, s)
	}
	switch {
	case key.class != class: // torch.load would take the first for all
		return &Error{Class: ErrUnsupported, Detail: "tensors of different dtypes in one storage", Expected: key.class, Actual: class,
			Remedy: "clone one of them"}
	case s.Bytes%unit != 0:
		return &Error{Class: ErrBadStorage, Detail: "size of the storage", Expected: fmt.Sprintf("a multiple of %d bytes", unit), Actual: fmt.Sprint(s.Bytes)}
	}
	location := s.Location
	if location == "" {
		location = "cpu"
	}
	p.op(opMark)
	_ = p.string("storage")
	if class == untyped {
		p.global("torch.storage " + untyped)
	} else {
		p.global(global("torch " + class))
	}
	if !p.again(key) {
		p.text(key.key, key)
	}
	if err := p.string(location); err != nil {
		return err
	}
	p.int(s.Bytes / unit)
	p.op(opTuple)
	p.put(nil)
	p.op(opBinPersID)
	return nil
}

// checkBounds makes sure that what is written can be read: a view inside its storage.
func (t *Tensor) checkBounds() error {
	if len(t.Shape) != len(t.Strides) || len(t.Shape) > 64 {
		return &Error{Class: ErrBadShape, Detail: "tensor", Actual: fmt.Sprintf("%d sizes, %d strides", len(t.Shape), len(t.Strides))}
	}
	if t.Start < 0 || t.Storage.Bytes < 0 {
		return &Error{Class: ErrBounds, Detail: "tensor", Actual: fmt.Sprintf("element %d of a storage of %d bytes", t.Start, t.Storage.Bytes)}
	}
	last, empty := uint64(t.Start), false
	for i, n := range t.Shape {
		if n < 0 || t.Strides[i] < 0 {
			return &Error{Class: ErrBadShape, Detail: "tensor", Actual: fmt.Sprintf("sizes %v, strides %v", t.Shape, t.Strides)}
		}
		hi, lo := bits.Mul64(uint64(max(n-1, 0)), uint64(t.Strides[i]))
		if last += lo; hi != 0 || last < lo || last > math.MaxInt64 {
			last = math.MaxInt64
		}
		empty = empty || n == 0
	}
	if held := uint64(t.Storage.Bytes) / uint64(dtypes[t.DType].bytes); !empty && last >= held {
		return &Error{Class: ErrBounds, Detail: "tensor", Expected: fmt.Sprintf("a view of %d elements", held), Actual: fmt.Sprintf("sizes %v, strides %v from %d", t.Shape, t.Strides, t.Start)}
	}
	return nil
}
