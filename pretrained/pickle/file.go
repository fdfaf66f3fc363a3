package pickle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/torchgo/torchgo/internal/weights"
)

// File is an open, checked checkpoint. It has the methods Path, Size, Len, Tensors, Tensor, ReadTensor, ReadPart, Map, Unchanged
// and Close, which may be called concurrently, but for Close. The name of a tensor is the keys of the dicts and lists that it is
// in, joined by dots.
type File struct {
	*weights.File
	root    Value
	kind    string
	archive *archive // nil unless it is a zip archive
}

// Options are how a file is read. The zero value is how Open does it.
type Options struct {
	// KeepUnknown keeps objects of classes that are not on the list as Opaque values; without it they are ErrForbiddenGlobal.
	// Either way nothing of them is run. It is what torch.load(weights_only=False) is for, without its danger.
	KeepUnknown bool
}

// Open opens and checks a file: what torch.save writes (a zip archive, since torch 1.6), wrote before (a pickle, and storages
// after it), or did in torch 0.1 (a tar archive). Its content decides, not its name. Only regular files are opened, through links
// too: a FIFO does not block it, a device is not touched.
func Open(path string) (*File, error) { return OpenWith(path, Options{}) }

// OpenWith is Open with options.
func OpenWith(path string, o Options) (*File, error) {
	return weights.OpenAs(path, func(f *weights.File) (*File, error) { return Read(f, o) })
}

// NewFile checks a file of the given size that r reads; name is for errors. It can't be mapped.
func NewFile(r io.ReaderAt, size int64, name string) (*File, error) {
	return NewFileWith(r, size, name, Options{})
}

// NewFileWith is NewFile with options.
func NewFileWith(r io.ReaderAt, size int64, name string, o Options) (*File, error) {
	f, err := weights.New(r, size, name)
	if err != nil {
		return nil, err
	}
	return Read(f, o)
}

// Read checks an open file, which stays the caller's if it fails.
func Read(f *weights.File, o Options) (*File, error) {
	file, err := read(f, o)
	if err != nil {
		var e *Error
		if errors.As(err, &e) && e.Class == ErrTruncated && e.Remedy == "" {
			e.Remedy = "download or save it again"
		}
		return nil, inFile(err, f.Path())
	}
	return file, nil
}

// inFile names the file in an error of this package.
func inFile(err error, path string) error {
	var e *Error
	if errors.As(err, &e) && e.File == "" {
		e.File = path
	}
	return err
}

// Root is the object that was saved. It is shared with the File, and not to be changed.
func (f *File) Root() Value { return f.root }

// Format is how the file is built: "zip", "legacy" or "tar".
func (f *File) Format() string { return f.kind }

// headBytes are enough to tell the formats apart.
const headBytes = 512

func read(f *weights.File, o Options) (*File, error) {
	head := make([]byte, min(headBytes, f.Size()))
	if err := f.ReadFull(head, 0); err != nil {
		return nil, err
	}
	file := &File{File: f}
	var err error
	switch {
	case len(head) == 0:
		return nil, &Error{Class: ErrTruncated, Expected: "a PyTorch checkpoint", Actual: "an empty file"}
	case strings.HasPrefix(string(head), sigLocal), strings.HasPrefix(string(head), sigEnd):
		file.kind = "zip"
		err = file.readZip(o)
	case head[0] == 0x80:
		file.kind = "legacy"
		err = file.readLegacy(o)
	case isTar(head):
		file.kind = "tar"
		err = file.readTar(o)
	default:
		err = otherFormat(f, head)
	}
	if err != nil {
		return nil, err
	}
	return file, file.list()
}

const wanted = "a PyTorch checkpoint"

// otherFormat says what a file is instead of a checkpoint.
func otherFormat(f *weights.File, head []byte) error {
	var end [endBytes]byte
	if f.Size() > endBytes && f.ReadFull(end[:], f.Size()-endBytes) == nil && strings.HasPrefix(string(end[:]), sigEnd) {
		return badZip(0, "bytes before the first record", "", "")
	}
	if len(head) > 8 && head[8] == '{' {
		return &Error{Class: ErrBadMagic, Expected: wanted, Actual: "a safetensors file?"}
	}
	err := weights.Sniff(head, wanted)
	if err == nil || errors.Is(err, ErrBadHeader) {
		return &Error{Class: ErrBadMagic, Expected: wanted, Actual: fmt.Sprintf("a file that begins with %x", head[:min(8, len(head))])}
	}
	return err
}

// verifyAtOpen is the size of archives whose checksums Open checks. That takes 10 ms; larger ones have Verify.
const verifyAtOpen = 64 << 20

// Verify reads the whole file and compares the checksums of an archive: ErrChecksum. torch.load does not, and Open does for small
// archives only. Records that torch saved without checksum, and the older formats, which have none, pass.
func (f *File) Verify(ctx context.Context) error {
	if f.archive == nil {
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range f.archive.records {
		r := &f.archive.records[i]
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return inFile(f.archive.verify(r, make([]byte, min(r.size, 1<<20))), f.Path())
		})
	}
	return g.Wait()
}

func (f *File) readZip(o Options) error {
	a, err := readArchive(f.File)
	if err != nil {
		return err
	}
	f.archive = a
	if a.find("constants.pkl") != nil {
		return &Error{Class: ErrUnsupported, Actual: "a TorchScript archive, which is a program", Remedy: "save the module's state_dict()"}
	}
	if a.compressed != nil {
		return a.compressed
	}
	small := func(name string) (string, error) {
		r := a.find(name)
		if r == nil {
			return "", nil
		}
		data, err := a.read(r, 1024)
		return string(data), err
	}
	version, err := small(".data/version")
	if err == nil && version == "" {
		version, err = small("version")
	}
	if err != nil {
		return err
	}
	if v, err := strconv.Atoi(strings.TrimRight(version, "\n")); err != nil || v < 1 || v > 10 {
		return &Error{Class: ErrUnsupportedVersion, Detail: "record version", Expected: "1 to 10", Actual: fmt.Sprintf("%.20q", version)}
	}
	order, err := small("byteorder")
	if err != nil {
		return err
	}
	if order != "" && order != "little" && order != "big" {
		return &Error{Class: ErrBadHeader, Detail: "record byteorder", Expected: "little or big", Actual: fmt.Sprintf("%.20q", order)}
	}
	pkl := a.find("data.pkl")
	if pkl == nil {
		return &Error{Class: ErrBadZip, Detail: "record data.pkl", Actual: "none"}
	}
	if pkl.size > MaxPickleBytes {
		return &Error{Class: ErrLimit, Offset: pkl.offset, Detail: "record data.pkl", Expected: fmt.Sprintf("at most %d bytes", MaxPickleBytes), Actual: fmt.Sprint(pkl.size)}
	}
	buf := make([]byte, min(f.Size(), 1<<20))
	if err := a.verify(pkl, buf); err != nil {
		return err
	}
	if f.Size() <= verifyAtOpen {
		for i := range a.records {
			if err := a.verify(&a.records[i], buf); err != nil {
				return err
			}
		}
	}
	b := builder{file: f, storages: map[string]*Storage{}}
	m := &machine{src: newSource(f.File, pkl.offset, pkl.offset+pkl.size), cut: ErrBadPickle, keep: o.KeepUnknown, tensor: b.countTensor}
	m.persistent = func(id Value) (Value, error) {
		s, err := b.storage(m, id, 5)
		if err != nil {
			return nil, err
		}
		if s.Data != nil {
			return s, nil
		}
		r := a.find("data/" + s.Key)
		if r == nil {
			return nil, &Error{Class: ErrBadStorage, Offset: m.op, Actual: fmt.Sprintf("no record data/%.100s", s.Key)}
		}
		if r.size != s.Bytes {
			return nil, &Error{Class: ErrBadStorage, Offset: m.op, Detail: fmt.Sprintf("storage %.100q", s.Key), Expected: fmt.Sprintf("%d bytes", s.Bytes), Actual: fmt.Sprintf("a record of %d", r.size)}
		}
		s.place(f.File, r.offset, order == "big")
		return s, nil
	}
	f.root, err = m.run()
	return err
}

// builder makes the storages of a file.
type builder struct {
	file     *File
	storages map[string]*Storage
	tensors  int
}

func (b *builder) countTensor(*Tensor) error {
	if b.tensors++; b.tensors > MaxTensors {
		return &Error{Class: ErrLimit, Expected: fmt.Sprintf("at most %d tensors", MaxTensors)}
	}
	return nil
}

// storage is the storage of a persistent id, a tuple of n values: ("storage", class, key, location, number of elements …). The
// first time that a key comes, it has no Data yet.
func (b *builder) storage(m *machine, id Value, n int) (*Storage, error) {
	pid, ok := id.(Tuple)
	if !ok || len(pid) != n {
		return nil, m.fail(ErrBadArgs, "persistent id", fmt.Sprintf("a tuple of %d", n), kindOf(id))
	}
	if pid[0] != "storage" {
		return nil, m.fail(ErrBadArgs, "persistent id", "of a storage", brief(pid[0]))
	}
	class, ok := pid[1].(*Opaque)
	key, ok2 := pid[2].(string)
	location, ok3 := pid[3].(string)
	count, ok4 := pid[4].(int64)
	if !ok || !ok2 || !ok3 || class.call == nil || !class.call.storage {
		err := badArgs("(storage, class, key, location, number of elements)", pid...)
		err.(*Error).Offset = m.op
		return nil, err
	}
	if !ok4 {
		if _, err := integer(pid[4], "number of elements", ErrBadStorage); err != nil {
			return nil, err
		}
	}
	dtype, size := class.call.dtype, int64(1)
	if dtype != "" {
		size = int64(dtypes[dtype].bytes)
	}
	switch {
	case !plainKey(key):
		return nil, m.fail(ErrBadStorage, "key of a storage", "letters and digits", fmt.Sprintf("%.40q", key))
	case location == "meta":
		return nil, m.fail(ErrUnsupported, "", "", "a meta tensor, which has no values")
	case !knownLocation(location):
		return nil, m.fail(ErrBadStorage, "location of a storage", "a device of torch", fmt.Sprintf("%.40q", location))
	case count < 0 || count > (1<<62)/size:
		return nil, m.fail(ErrBadStorage, fmt.Sprintf("storage %q", key), "a number of elements", fmt.Sprint(count))
	}
	s := b.storages[key]
	switch {
	case s == nil:
		s = &Storage{DType: dtype, Bytes: count * size, Location: location, Key: key}
		b.storages[key] = s
	case s.Bytes != count*size:
		return nil, m.fail(ErrBadStorage, fmt.Sprintf("storage %q", key), fmt.Sprintf("%d bytes, as before", s.Bytes), fmt.Sprint(count*size))
	case s.DType != dtype: // the same bytes as another dtype: torch.save doesn't, torch.load allows it
		other := b.storages[key+" "+string(dtype)]
		if other == nil {
			c := *s
			c.DType = dtype
			other = &c
			b.storages[key+" "+string(dtype)] = other
		}
		return other, nil
	}
	return s, nil
}

// place says where a storage's bytes are.
func (s *Storage) place(f *weights.File, offset int64, bigEndian bool) {
	s.Offset = offset
	s.Data = &section{f, offset, s.Bytes}
	if n := s.DType.swapBytes(); bigEndian && n != 1 {
		s.swapped = true
		if n > 1 {
			s.Data = &swapper{s.Data, int64(n), s.Bytes}
		}
	}
}

// plainKey reports whether a storage's key can be part of a record's name.
func plainKey(key string) bool {
	for _, c := range []byte(key) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '_' {
			return false
		}
	}
	return key != "" && len(key) <= 64
}
