package pickle

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/torchgo/torchgo/internal/atomicfile"
	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/modelfolder"
)

// Document is a file that belongs to a checkpoint, as config.json does.
type Document = modelfolder.Document

// Named is a tensor of a state dict.
type Named struct {
	Name   string
	Tensor *Tensor
}

// ShardOptions are the options of WriteSharded.
type ShardOptions struct {
	MaxShardBytes   int64      // default 50 GB, in powers of 1000
	Variant         string     // pytorch_model.<Variant>.bin
	TotalParameters int64      // for the index; default: all elements written
	Documents       []Document // files that are replaced together with the weights
}

// WriteSharded writes a checkpoint as transformers did up to version 4 with safe_serialization=False, into a folder that
// exists: pytorch_model.bin, a dict of tensors, if it fits into one file, else pytorch_model-00001-of-0000N.bin, … and the
// index; and the documents that go with it. Tensors that share a storage are in one file. It returns the names of the weight
// files.
//
// As with safetensors an error leaves the folder as it was, and the weights take the place of older ones at once; but no reader
// follows a config.json to a .bin file of another name, so it and the other documents come next: a process that is stopped
// between the two leaves the old config.json beside new weights. Files of safetensors that readers would find
// instead are an error, ErrConflict.
func WriteSharded(ctx context.Context, dir string, tensors []Named, o ShardOptions) ([]string, error) {
	if o.MaxShardBytes == 0 {
		o.MaxShardBytes = modelfolder.DefaultShardBytes
	}
	c := modelfolder.Checkpoint{TotalParameters: o.TotalParameters, Variant: true, Documents: o.Documents}
	v := ""
	if o.Variant != "" {
		v = "." + o.Variant
	}
	c.Single, c.Index = "pytorch_model"+v+".bin", "pytorch_model.bin.index"+v+".json"
	c.Hiding = []string{"model" + v + ".safetensors", "model.safetensors.index" + v + ".json"}
	if err := fileerr.CheckName(c.Single); err != nil || strings.Contains(o.Variant, "/") {
		return nil, &Error{Class: ErrPath, File: dir, Detail: "variant", Actual: fmt.Sprintf("%.80q", o.Variant)}
	}
	var first []Named // of each storage
	var sizes []int64
	sharing := map[*Storage][]Named{}
	seen := map[string]bool{}
	for _, n := range tensors {
		s := n.Tensor.Storage
		if seen[n.Name] {
			return nil, &Error{Class: ErrDuplicate, File: filepath.Join(dir, c.Single), Tensor: n.Name}
		}
		seen[n.Name] = true
		if sharing[s] == nil {
			first, sizes = append(first, n), append(sizes, s.Bytes)
		}
		sharing[s] = append(sharing[s], n)
	}
	shards := modelfolder.Split(sizes, o.MaxShardBytes)
	for _, indices := range shards {
		var shard modelfolder.Shard
		dict := &Dict{}
		add := func(n Named, bytes int64) {
			_ = dict.Set(n.Name, n.Tensor) // a string can be a key
			numel := int64(1)
			for _, d := range n.Tensor.Shape {
				numel *= int64(d)
			}
			shard.Tensors = append(shard.Tensors, modelfolder.Tensor{Name: n.Name, Bytes: bytes, Numel: numel})
		}
		if len(shards) == 1 {
			for _, n := range tensors {
				add(n, 0) // of no interest without an index
			}
			indices = nil
		}
		for _, i := range indices {
			add(first[i], sizes[i])
		}
		for _, i := range indices { // after all others in shards, as in transformers
			for _, n := range sharing[first[i].Tensor.Storage][1:] {
				add(n, 0)
			}
		}
		shard.Stage = func(ctx context.Context, path string, create func() (*atomicfile.File, error)) error {
			_, err := stage(ctx, path, dict, create)
			return err
		}
		c.Shards = append(c.Shards, shard)
	}
	return modelfolder.Write(ctx, dir, c)
}
