package checkpoint

import (
	"bytes"
	"fmt"
	"math"
	"path/filepath"
	"strings"

	"github.com/torchgo/torchgo/internal/weights"
	"github.com/torchgo/torchgo/pretrained/gguf"
	"github.com/torchgo/torchgo/pretrained/pickle"
	"github.com/torchgo/torchgo/pretrained/safetensors"
)

// Format is what a file of weights is.
type Format string

// The formats.
const (
	Safetensors Format = "safetensors"
	Pickle      Format = "PyTorch" // torch.save's: zip, legacy or tar
	GGUF        Format = "GGUF"
)

// detect tells the format of a file by its first bytes. Safetensors has no magic; what isn't known may be one, or a
// broken file of another format, of which the name gives a hint, so that its reader says what is wrong.
func detect(head []byte, path string) Format {
	switch {
	case strings.HasSuffix(path, ".safetensors"): // a promise: what takes it for safe must not get a pickle
		return Safetensors
	case bytes.HasPrefix(head, []byte("GGUF")):
		return GGUF
	case bytes.HasPrefix(head, []byte("PK\x03\x04")), bytes.HasPrefix(head, []byte("PK\x05\x06")), // zip, with nothing in it
		len(head) > 2 && head[0] == 0x80 && head[1] <= 5, // a pickle's protocol
		len(head) >= 262 && string(head[257:262]) == "ustar":
		return Pickle
	case len(head) > 8 && strings.ContainsRune("{ \t\r\n", rune(head[8])):
		return Safetensors
	}
	switch filepath.Ext(path) {
	case ".gguf":
		return GGUF
	case ".bin", ".pt", ".pth":
		return Pickle
	}
	return Safetensors
}

// File is an open file of weights.
type File struct {
	*weights.File
	Format   Format
	Metadata any          // what the file says of itself, for JSON; nil: nothing
	GGUF     *gguf.File   // a GGUF file's metadata, and its tensors as they are stored; nil: another format
	Pickle   *pickle.File // a PyTorch file's whole object; nil: another format
}

var readers = map[Format]func(f *weights.File, o OpenOptions) (*File, error){
	Safetensors: readSafetensors,
	GGUF:        readGGUF,
	Pickle:      readPickle,
}

func read(f *weights.File, o OpenOptions) (*File, error) {
	head := make([]byte, min(f.Size(), 512))
	if err := f.ReadFull(head, 0); err != nil {
		return nil, err
	}
	format := detect(head, f.Path())
	if o.Only != "" {
		format = o.Only // whose reader says what else the file is
	}
	file, err := readers[format](f, o)
	if err != nil {
		return nil, err
	}
	file.Format = format
	return file, nil
}

func readSafetensors(f *weights.File, _ OpenOptions) (*File, error) {
	st, err := safetensors.Read(f)
	if err != nil {
		return nil, err
	}
	file := &File{File: f}
	if m := st.Metadata(); m != nil {
		file.Metadata = m
	}
	return file, nil
}

func readGGUF(f *weights.File, _ OpenOptions) (*File, error) {
	g, err := gguf.Read(f)
	if err != nil {
		return nil, err
	}
	return &File{File: f, Metadata: g.Metadata(), GGUF: g}, nil
}

func readPickle(f *weights.File, o OpenOptions) (*File, error) {
	p, err := pickle.Read(f, pickle.Options{KeepUnknown: o.KeepUnknown})
	if err != nil {
		return nil, err
	}
	file := &File{File: p.File, Pickle: p}
	if o.StateDict {
		if file.File, err = p.StateDict(); err != nil {
			return nil, err
		}
	} else if m := plain(p.Root()); len(m) > 0 {
		file.Metadata = m
	}
	return file, nil
}

// plain are the numbers and texts beside the tensors of a dict: a training state's epoch and the like.
func plain(v pickle.Value) map[string]any {
	m := map[string]any{}
	if d, ok := v.(*pickle.Dict); ok {
		for key, value := range d.Items() {
			name, ok := key.(string)
			switch x := value.(type) {
			case float64:
				if math.IsNaN(x) || math.IsInf(x, 0) { // which JSON lacks
					value = fmt.Sprint(x)
				}
			case bool, int64, string:
			default:
				ok = false
			}
			if ok {
				m[name] = value
			}
		}
	}
	return m
}

// stored is how a tensor is in the file: its type there, its bytes, and a read of some.
func (f *File) stored(t TensorInfo) (dtype string, bytes int, read func(dst []byte, off int) error) {
	if f.GGUF == nil {
		return t.DType.String(), t.Bytes, func(dst []byte, off int) error { return f.ReadPart(t.Name, dst, off) }
	}
	s, _ := f.GGUF.Stored(t.Name)
	return s.Type.String(), int(s.Bytes), func(dst []byte, off int) error { return f.GGUF.ReadStored(t.Name, dst, int64(off)) }
}
