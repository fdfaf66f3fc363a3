package checkpoint

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/torchgo/torchgo/internal/weights"
	"golang.org/x/sync/errgroup"
)

// Listing is what a checkpoint contains, in the JSON of `torchgo inspect`.
type Listing struct {
	Tensors  []ListedTensor `json:"tensors"`
	Metadata any            `json:"metadata"` // a file's, or an index's; null if there is none
}

// ListedTensor is one tensor in a Listing.
type ListedTensor struct {
	Name   string `json:"name"`
	DType  string `json:"dtype"` // safetensors' code, whatever the format; of GGUF ggml's name
	Shape  []int  `json:"shape"`
	Bytes  int    `json:"bytes"`            // as read; of GGUF as stored
	File   string `json:"file"`             // relative to the folder of the checkpoint
	SHA256 string `json:"sha256,omitempty"` // of those bytes, in hexadecimal, if it was asked for
}

// List opens a file, index or folder as Open does and says what it contains; with digest, also
// the SHA-256 of each tensor. BOOL values are checked in any case.
func List(ctx context.Context, path string, digest bool) (*Listing, error) {
	c, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.List(ctx, digest)
}

// List says what the checkpoint contains.
func (c *Checkpoint) List(ctx context.Context, digest bool) (*Listing, error) {
	l := &Listing{Tensors: make([]ListedTensor, 0, c.Len())}
	switch {
	case c.index != nil && c.index.Metadata != nil:
		l.Metadata = c.index.Metadata
	case c.index == nil && len(c.files) == 1:
		l.Metadata = c.files[0].Metadata
	}
	if m, ok := l.Metadata.(json.Marshaler); ok { // GGUF's, which reads the file
		text, err := m.MarshalJSON()
		if err != nil {
			return nil, err
		}
		l.Metadata = json.RawMessage(text)
	}
	var todo []func(context.Context) error
	for i, f := range c.files {
		for _, t := range f.Tensors() {
			if c.where[t.Name] != f {
				continue // a part, or one that another file has in its stead
			}
			n := len(l.Tensors)
			dtype, bytes, read := f.stored(t)
			l.Tensors = append(l.Tensors, ListedTensor{Name: t.Name, DType: dtype, Shape: slices.Clone(t.Shape), Bytes: bytes, File: filepath.FromSlash(c.names[i])})
			if digest || t.DType == weights.BOOL {
				todo = append(todo, func(ctx context.Context) error {
					sum, err := digestOf(ctx, bytes, read)
					if digest {
						l.Tensors[n].SHA256 = sum
					}
					return err
				})
			}
		}
	}
	if digest {
		for _, f := range c.files {
			if f.Pickle != nil {
				todo = append(todo, f.Pickle.Verify)
			}
		}
	}
	g, groupCtx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, f := range todo {
		if groupCtx.Err() != nil {
			break
		}
		g.Go(func() error { return f(groupCtx) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return l, ctx.Err()
}

func digestOf(ctx context.Context, bytes int, read func(dst []byte, off int) error) (string, error) {
	sum := sha256.New()
	buf := make([]byte, min(bytes, 1<<20))
	for off := 0; off < bytes; off += len(buf) {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		part := buf[:min(len(buf), bytes-off)]
		if err := read(part, off); err != nil {
			return "", err
		}
		sum.Write(part)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
