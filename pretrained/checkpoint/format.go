package checkpoint

import (
	"bytes"
	"strings"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/weights"
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

// detect tells the format of a file by its first bytes. What is none of the others is taken for safetensors, which has
// no magic: its reader says what is wrong.
func detect(head []byte) Format {
	switch {
	case bytes.HasPrefix(head, []byte("GGUF")):
		return GGUF
	case bytes.HasPrefix(head, []byte("PK\x03\x04")), bytes.HasPrefix(head, []byte("PK\x05\x06")), // zip, with nothing in it
		len(head) > 2 && head[0] == 0x80 && head[1] <= 5, // a pickle's protocol
		len(head) >= 262 && string(head[257:262]) == "ustar":
		return Pickle
	}
	return Safetensors
}

// File is an open file of weights.
type File struct {
	*weights.File
	Format   Format
	Metadata any // what the file says of itself, for JSON; nil: nothing
}

func read(f *weights.File, o OpenOptions) (*File, error) {
	head := make([]byte, min(f.Size(), 512))
	if err := f.ReadFull(head, 0); err != nil {
		return nil, err
	}
	format := detect(head)
	switch {
	case o.Only != "":
		format = o.Only // whose reader says what else the file is
	case strings.HasSuffix(f.Path(), ".safetensors"): // a promise: what takes it for safe must not get a pickle
		format = Safetensors
	}
	switch format {
	case Safetensors:
		st, err := safetensors.Read(f)
		if err != nil {
			return nil, err
		}
		file := &File{File: f, Format: format}
		if m := st.Metadata(); m != nil {
			file.Metadata = m
		}
		return file, nil
	}
	return nil, &Error{Class: fileerr.ErrUnsupported, File: f.Path(), Detail: string(format) + " files can't be loaded yet", Remedy: "convert it to safetensors"}
}
