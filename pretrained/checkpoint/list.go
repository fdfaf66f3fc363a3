package checkpoint

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/torchgo/torchgo/internal/weights"
	"golang.org/x/sync/errgroup"
)

// Listing is what a checkpoint contains, in the JSON of `torchgo inspect`.
type Listing struct {
	Tensors  []ListedTensor `json:"tensors"`
	Metadata any            `json:"metadata"` // a file's __metadata__, an index's metadata; null if there is none
}

// ListedTensor is one tensor in a Listing.
type ListedTensor struct {
	Name   string `json:"name"`
	DType  string `json:"dtype"`
	Shape  []int  `json:"shape"`
	Bytes  int    `json:"bytes"`
	File   string `json:"file"`             // relative to the folder of the checkpoint
	SHA256 string `json:"sha256,omitempty"` // of the bytes, in hexadecimal, if it was asked for
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
	var todo []func(context.Context) error
	for i, f := range c.files {
		for _, t := range f.Tensors() {
			if c.where[t.Name] != f {
				continue // a part, or one that another file has in its stead
			}
			n := len(l.Tensors)
			l.Tensors = append(l.Tensors, ListedTensor{Name: t.Name, DType: t.DType.String(), Shape: slices.Clone(t.Shape), Bytes: t.Bytes, File: filepath.FromSlash(c.names[i])})
			if digest || t.DType == weights.BOOL {
				todo = append(todo, func(ctx context.Context) error {
					sum, err := f.digest(ctx, t)
					if digest {
						l.Tensors[n].SHA256 = sum
					}
					return err
				})
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

func (f *File) digest(ctx context.Context, t TensorInfo) (string, error) {
	sum := sha256.New()
	buf := make([]byte, min(t.Bytes, 1<<20))
	for off := 0; off < t.Bytes; off += len(buf) {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		part := buf[:min(len(buf), t.Bytes-off)]
		if err := f.ReadPart(t.Name, part, off); err != nil {
			return "", err
		}
		sum.Write(part)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
