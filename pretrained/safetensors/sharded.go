package safetensors

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/torchgo/torchgo/internal/atomicfile"
	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/modelfolder"
	"github.com/torchgo/torchgo/internal/weights"
)

// DefaultShardBytes is transformers' max_shard_size, "50GB".
const DefaultShardBytes = modelfolder.DefaultShardBytes

// Document is a file that belongs to a checkpoint, as config.json does.
type Document = modelfolder.Document

// ParseSize reads a size as "5GB": a number and TB, GB, MB or KB, which are powers of 1000.
func ParseSize(s string) (int64, error) { return modelfolder.ParseSize(s) }

// ShardOptions are the options of WriteSharded.
type ShardOptions struct {
	MaxShardBytes   int64             // default DefaultShardBytes; see ParseSize
	Variant         string            // as in Layout
	Metadata        map[string]string // of each file; transformers writes {"format": "pt"}
	TotalParameters int64             // for the index; default: all elements written
	Documents       []Document        // files that are replaced together with the weights

	// Compress writes compressed files, which only this package reads: see docs/compression.md. MaxShardBytes is of
	// the tensors as they are without.
	Compress bool
}

// WriteSharded writes a checkpoint into a folder that exists: model.safetensors if it fits into one file, else
// model-00001-of-0000N.safetensors, … and the index; and the documents that go with it. It returns the
// names of the weight files.
//
// All files are complete and on the disk under temporary names before the first one gets its own; so an
// error until then (disk full, a tensor that can't be read) leaves the folder as it was. Then one rename
// makes the new checkpoint the one that is found, the temporary names give way to the usual ones, and what
// is left of the old one goes. A process that is stopped at any point leaves a folder in which the old
// checkpoint is found or the new one, whole; the next save removes its temporary files. Savers of one
// folder wait for each other.
func WriteSharded(ctx context.Context, dir string, tensors []Source, o ShardOptions) ([]string, error) {
	if o.MaxShardBytes == 0 {
		o.MaxShardBytes = DefaultShardBytes
	}
	c := modelfolder.Checkpoint{TotalParameters: o.TotalParameters, Variant: o.Variant != "", Documents: o.Documents}
	c.Single, c.Index = fileNames(o.Variant)
	if err := fileerr.CheckName(c.Single); err != nil || strings.Contains(o.Variant, "/") {
		return nil, &Error{Class: ErrPath, File: dir, Detail: "variant", Actual: fmt.Sprintf("%.80q", o.Variant)}
	}
	if err := noDuplicates(tensors); err != nil {
		return nil, inFile(err, filepath.Join(dir, c.Single))
	}
	sizes := make([]int64, len(tensors))
	for i, t := range tensors {
		var err error
		if sizes[i], err = weights.ByteSize(t.DType, t.Shape); err != nil {
			err.(*Error).Tensor = t.Name
			return nil, inFile(err, dir)
		}
	}
	for _, indices := range modelfolder.Split(sizes, o.MaxShardBytes) {
		var part []Source
		var shard modelfolder.Shard
		for _, i := range indices {
			part = append(part, tensors[i])
			shard.Tensors = append(shard.Tensors, modelfolder.Tensor{Name: tensors[i].Name, Bytes: sizes[i], Numel: int64(TensorInfo{Shape: tensors[i].Shape}.Numel())})
		}
		shard.Stage = stager(part, o.Metadata, o.Compress)
		c.Shards = append(c.Shards, shard)
	}
	return modelfolder.Write(ctx, dir, c)
}

// WriteBeside writes one file of weights, under any name, with the documents that go with it into a folder that exists.
// Other files there stay. All are complete and on the disk under temporary names before the first one gets its own, so
// an error until then leaves the folder as it was. Then the weights get theirs, and after them the documents: a process
// that is stopped between the two leaves new weights beside old documents.
func WriteBeside(ctx context.Context, dir, name string, tensors []Source, metadata map[string]string, documents ...Document) error {
	if err := noDuplicates(tensors); err != nil {
		return inFile(err, filepath.Join(dir, name))
	}
	return modelfolder.WriteBeside(ctx, dir, name, stager(tensors, metadata, false), documents...)
}

// stager is stage for package modelfolder.
func stager(tensors []Source, metadata map[string]string, compress bool) func(context.Context, string, func() (*atomicfile.File, error)) error {
	return func(ctx context.Context, path string, create func() (*atomicfile.File, error)) error {
		_, err := stage(ctx, path, tensors, metadata, compress, create)
		return err
	}
}

func noDuplicates(tensors []Source) error {
	seen := make(map[string]bool, len(tensors))
	for _, t := range tensors {
		if seen[t.Name] {
			return &Error{Class: ErrDuplicate, Tensor: t.Name}
		}
		seen[t.Name] = true
	}
	return nil
}

// fileNames are the names of a single file and of an index.
func fileNames(variant string) (single, index string) {
	if variant == "" {
		return "model.safetensors", "model.safetensors.index.json"
	}
	return "model." + variant + ".safetensors", "model.safetensors.index." + variant + ".json"
}
