package checkpoint

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/strictjson"
	"github.com/torchgo/torchgo/internal/weights"
	"github.com/torchgo/torchgo/pretrained/safetensors"
)

// A distributed checkpoint (torch.distributed.checkpoint, HuggingFaceStorageWriter with save_distributed) has each
// rank's part of a tensor in a safetensors file of its own, and in that file's metadata where in the whole it begins.

// shardingInfo is the key of the metadata: {"<tensor>": {"saved_offsets": [0, 16]}}.
const shardingInfo = "DCP_SHARDING_INFO"

// openDistributed opens all safetensors files of the folder, as PyTorch does.
func (c *Checkpoint) openDistributed() error {
	entries, err := os.ReadDir(c.path)
	if err != nil {
		return &Error{File: c.path, Err: cause(err)}
	}
	c.opts.Only = Safetensors
	whole := map[string]*whole{}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".safetensors") {
			continue
		}
		if err := c.add(filepath.Join(c.path, e.Name()), e.Name()); err != nil {
			return err
		}
		f := c.files[len(c.files)-1]
		offsets, err := savedOffsets(f)
		if err != nil {
			return err
		}
		for _, t := range f.Tensors() {
			p := piece{file: f, TensorInfo: t, offset: offsets[t.Name]}
			if p.offset == nil {
				p.offset = make([]int, len(t.Shape))
			}
			if err := gather(whole, p); err != nil {
				return err
			}
		}
	}
	var made []TensorInfo
	for _, name := range slices.Sorted(maps.Keys(whole)) {
		w := whole[name]
		if err := w.check(c.path); err != nil {
			return err
		}
		if len(w.pieces) == 1 { // all of it is in one file
			c.where[name] = w.pieces[0].file
			continue
		}
		size, err := weights.ByteSize(w.pieces[0].DType, w.shape)
		if err != nil {
			err.(*Error).File, err.(*Error).Tensor = c.path, name
			return err
		}
		made = append(made, TensorInfo{Name: name, DType: w.pieces[0].DType, Shape: w.shape, Offset: weights.Made, Bytes: int(size)})
	}
	if len(made) == 0 {
		return nil
	}
	f, err := weights.New(nil, 0, c.path)
	if err != nil {
		return err
	}
	f.SetTensors(made, func(t TensorInfo, dst []byte, off int) error { return whole[t.Name].read(dst, off) })
	file := &File{File: f, Format: Safetensors}
	for _, t := range made {
		c.where[t.Name] = file
	}
	c.files, c.names = append(c.files, file), append(c.names, "shard-*.safetensors")
	return nil
}

// savedOffsets are where the tensors of a file begin in the whole ones; nil: at zero.
func savedOffsets(f *File) (map[string][]int, error) {
	metadata, _ := f.Metadata.(map[string]string)
	text := metadata[shardingInfo]
	if text == "" {
		return nil, nil
	}
	bad := func(tensor string, err error) error {
		e := &Error{Class: fileerr.ErrBadHeader, File: f.Path(), Tensor: tensor, Detail: shardingInfo + ": " + err.Error()}
		if j := (*strictjson.Error)(nil); errors.As(err, &j) && j.Class == strictjson.ErrLimit {
			e.Class = fileerr.ErrLimit
		}
		return e
	}
	root, err := strictjson.Parse([]byte(text), strictjson.Options{MaxMembers: 8 * safetensors.MaxTensors})
	if err != nil {
		return nil, bad("", err)
	}
	object, err := root.AsObject()
	if err != nil {
		return nil, bad("", err)
	}
	offsets := make(map[string][]int, object.Len())
	for name, v := range object.All() {
		info, err := v.AsObject()
		if err != nil {
			return nil, bad(name, err)
		}
		saved, _ := info.Get("saved_offsets")
		list, err := saved.AsArray()
		if err != nil {
			return nil, bad(name, err)
		}
		at := make([]int, len(list))
		for i, v := range list {
			n, err := v.AsInt()
			if err == nil && n < 0 {
				err = errors.New("saved_offsets: a negative number")
			}
			if err != nil {
				return nil, bad(name, err)
			}
			at[i] = int(n)
		}
		offsets[name] = at
	}
	return offsets, nil
}

// piece is a rectangle of a tensor, in a file.
type piece struct {
	TensorInfo
	file   *File
	offset []int // of its first element, in the whole
}

// whole is a tensor of pieces.
type whole struct {
	shape  []int
	pieces []piece
}

// gather adds a piece to its tensor.
func gather(all map[string]*whole, p piece) error {
	bad := func(class error, detail string, expected, actual any) error {
		return &Error{Class: class, File: p.file.Path(), Tensor: p.Name, Detail: detail, Expected: fmt.Sprint(expected), Actual: fmt.Sprint(actual)}
	}
	if len(p.offset) != len(p.Shape) {
		return bad(fileerr.ErrBadShape, "saved_offsets", fmt.Sprintf("%d dimensions", len(p.Shape)), len(p.offset))
	}
	w := all[p.Name]
	if w == nil {
		w = &whole{shape: make([]int, len(p.Shape))}
		all[p.Name] = w
	}
	if len(w.shape) != len(p.Shape) {
		return bad(fileerr.ErrConflict, "dimensions", len(w.shape), len(p.Shape))
	}
	if len(w.pieces) > 0 && w.pieces[0].DType != p.DType {
		return bad(fileerr.ErrConflict, "dtype", w.pieces[0].DType, p.DType)
	}
	if p.DType.Bits()%8 != 0 {
		return bad(fileerr.ErrUnsupported, "a dtype of parts of bytes can't be put together", "whole bytes", p.DType)
	}
	for d, n := range p.Shape {
		if p.offset[d] > 1<<62 || n > 1<<62 {
			return bad(fileerr.ErrBadShape, "saved_offsets", "a tensor that can be", p.offset)
		}
		w.shape[d] = max(w.shape[d], p.offset[d]+n)
	}
	if len(w.pieces) == maxPieces {
		return bad(fileerr.ErrLimit, "parts", fmt.Sprintf("at most %d", maxPieces), "more")
	}
	if p.Numel() > 0 || len(w.pieces) == 0 {
		w.pieces = append(w.pieces, p)
	}
	return nil
}

// check makes sure that each element is in one piece.
func (w *whole) check(dir string) error {
	if len(w.pieces) > 1 {
		w.pieces = slices.DeleteFunc(w.pieces, func(p piece) bool { return p.Numel() == 0 })
	}
	name := w.pieces[0].Name
	if _, err := weights.ByteSize(w.pieces[0].DType, w.shape); err != nil {
		err.(*Error).File, err.(*Error).Tensor = dir, name
		return err
	}
	slices.SortFunc(w.pieces, func(a, b piece) int { return slices.Compare(a.offset, b.offset) })
	have, active := 0, []piece(nil)
	for _, p := range w.pieces {
		have += p.Numel()
		// Only those that still reach this row can overlap.
		active = slices.DeleteFunc(active, func(a piece) bool { return len(a.Shape) > 0 && a.offset[0]+a.Shape[0] <= p.offset[0] })
		for _, a := range active {
			if a.overlaps(p) {
				return &Error{Class: fileerr.ErrConflict, File: p.file.Path(), Tensor: name,
					Detail: fmt.Sprintf("elements from %v are also in %s", p.offset, filepath.Base(a.file.Path()))}
			}
		}
		active = append(active, p)
	}
	if want := (TensorInfo{Shape: w.shape}).Numel(); have != want {
		return &Error{Class: fileerr.ErrMissingShard, File: dir, Tensor: name, Detail: "a part of it is in no file",
			Expected: fmt.Sprintf("%d elements of %v", want, w.shape), Actual: fmt.Sprint(have), Remedy: "copy the files of all ranks"}
	}
	return nil
}

func (p piece) overlaps(q piece) bool {
	for d := range p.Shape {
		if p.offset[d]+p.Shape[d] <= q.offset[d] || q.offset[d]+q.Shape[d] <= p.offset[d] {
			return false
		}
	}
	return true
}

// read gives bytes of the whole tensor from byte off.
func (w *whole) read(dst []byte, off int) error {
	for _, p := range w.pieces {
		if err := p.copyTo(dst, off, w.shape); err != nil {
			return err
		}
	}
	return nil
}

// copyTo puts what the piece has of the bytes [off, off+len(dst)) of a tensor of that shape into dst: run by run,
// where a run is as many of its elements as lie one after the other in both. Short runs are read many at a time.
func (p piece) copyTo(dst []byte, off int, shape []int) error {
	size := p.DType.Bits() / 8
	last := len(shape) // dimensions from here on are whole
	for last > 0 && p.Shape[last-1] == shape[last-1] {
		last--
	}
	step := size // bytes of a step in the dimension before
	for _, n := range shape[last:] {
		step *= n
	}
	run, strides := step, make([]int, last) // bytes of a run; steps in the whole
	if last > 0 {
		run *= p.Shape[last-1]
	}
	for d := last - 1; d >= 0; d-- {
		strides[d] = step
		step *= shape[d]
	}
	place := func(n int) (to int) { // where the run n begins in the whole
		for d := last - 1; d >= 0; d-- {
			i := p.offset[d]
			if d < last-1 {
				i += n % p.Shape[d]
				n /= p.Shape[d]
			}
			to += i * strides[d]
		}
		return to
	}
	runs := p.Bytes / run
	var buf []byte // bytes of the piece from start
	start := 0
	for n := sort.Search(runs, func(n int) bool { return place(n)+run > off }); n < runs; n++ {
		to := place(n)
		from, end := max(to, off), min(to+run, off+len(dst))
		if from >= end {
			break
		}
		out, at := dst[from-off:end-off], n*run+from-to
		if len(out) >= bufferBytes/4 {
			if err := p.file.ReadPart(p.Name, out, at); err != nil {
				return err
			}
			continue
		}
		if buf == nil || at+len(out) > start+len(buf) {
			if cap(buf) == 0 {
				buf = make([]byte, min(bufferBytes, p.Bytes-at))
			}
			buf, start = buf[:min(cap(buf), p.Bytes-at)], at
			if err := p.file.ReadPart(p.Name, buf, at); err != nil {
				return err
			}
		}
		copy(out, buf[at-start:])
	}
	return nil
}

// bufferBytes is what is read at once of pieces with short rows.
const bufferBytes = 256 << 10

// maxPieces bounds the parts of a tensor, and so what comparing them costs.
const maxPieces = 1 << 14
