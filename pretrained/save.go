package pretrained

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/torchgo/torchgo/internal/atomicfile"
	"github.com/torchgo/torchgo/internal/weights"
	"github.com/torchgo/torchgo/pretrained/pickle"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
)

// SaveOptions are the arguments of save_pretrained.
type SaveOptions struct {
	MaxShardSize string // "5GB", in powers of 1000; default "50GB"
	Variant      string // write model.<Variant>.safetensors

	// StateDict is saved in place of the model's own: names, as the model's, and tensors.
	StateDict iter.Seq2[string, *torch.Tensor]

	// SaveOriginalFormat false writes the model's own names and tensors, even where the files that it was
	// loaded from had others. Default: true, a model is saved as it was found.
	SaveOriginalFormat torch.Opt[bool]

	// BaseModel saves the model itself, as it would be without its adapters. Default: of a model with adapters the active
	// one is saved, in peft's format (adapter_config.json, adapter_model.safetensors), and nothing else.
	BaseModel bool

	// SavePeftFormat false saves an adapter's tensors alone, and without base_model.model. before their names.
	SavePeftFormat torch.Opt[bool]

	// SafeSerialization false writes pytorch_model.bin, or shards of that, for readers who know PyTorch's own format alone. It
	// has tied weights under all their names, and needs a folder without safetensors. Default: true, safetensors.
	SafeSerialization torch.Opt[bool]

	// IsMainProcess false writes nothing: of several processes with the same model, one saves.
	IsMainProcess torch.Opt[bool]

	// Compress makes the files of weights smaller without loss, bfloat16 by about a third. Only torchgo reads such files,
	// and can't map them: see docs/compression.md.
	Compress bool

	// Files are further files for the folder, which are replaced together with the checkpoint: a
	// tokenizer's, say. Names may have a slash.
	Files map[string][]byte

	// Progress is called as tensors are written, with the bytes so far and in all.
	Progress func(done, total int64)
}

// SavePretrained writes config.json, generation_config.json if the model can generate, and the weights of m
// into dir, which it makes if need be: one model.safetensors, or shards and their index where they are
// larger than MaxShardSize. Of tied weights the source is written.
//
// Who loads from the folder meanwhile, or finds it after a crash, gets the former checkpoint or the new one,
// whole (see safetensors.WriteSharded); an error leaves the former one. It is safe to save into the folder
// that m was loaded from: weights that are mapped from its files keep their values. m must not change
// meanwhile.
func SavePretrained(ctx context.Context, m Model, dir string, opts SaveOptions) error {
	if !opts.IsMainProcess.Or(true) {
		return nil
	}
	if a := m.base().Adapters; a != nil && len(a.Names()) > 0 && !opts.BaseModel && opts.StateDict == nil {
		return saveAdapter(ctx, m, dir, opts)
	}
	shard := safetensors.ShardOptions{Variant: opts.Variant, Compress: opts.Compress, Metadata: map[string]string{"format": "pt"}}
	if opts.MaxShardSize != "" {
		var err error
		if shard.MaxShardBytes, err = safetensors.ParseSize(opts.MaxShardSize); err != nil {
			return &Error{Class: ErrArgument, Detail: "max shard size", Err: err}
		}
		shard.MaxShardBytes = max(shard.MaxShardBytes, 1)
	}
	safe := opts.SafeSerialization.Or(true)
	if !safe && opts.Compress {
		return &Error{Class: ErrArgument, Detail: "compressing", Expected: "files of safetensors"}
	}
	var tensors []safetensors.Source
	var same []any
	var err error
	set := map[string]any{"architectures": []string{m.Class()}}
	closed := torch.TryDo(func() {
		shard.TotalParameters, set["dtype"] = m.NumParameters(), m.DType().String()
		tensors, same, err = savedTensors(m, opts)
	})
	if closed != nil {
		return &Error{File: dir, Class: ErrArgument, Detail: "saving " + m.Class(), Err: closed}
	}
	if err != nil {
		return inFile(err, dir)
	}
	if opts.Progress != nil {
		reportWrites(tensors, opts.Progress)
	}
	var generation []byte
	if g := m.GenerationConfig(); g != nil {
		if generation, err = g.json(); err != nil {
			return inFile(err, filepath.Join(dir, generationFile))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(opts.Files)) {
		if isCheckpointFile(name) {
			return &Error{Class: ErrArgument, Detail: "further file", Expected: "one that is not of the checkpoint", Actual: strconv.Quote(shorten(name))}
		}
		shard.Documents = append(shard.Documents, safetensors.Document{Name: name, Data: opts.Files[name]})
	}
	return writeFolder(dir, m.Config(), set, generation, shard.Documents, func(documents []safetensors.Document) (err error) {
		shard.Documents = documents
		if safe {
			_, err = safetensors.WriteSharded(ctx, dir, tensors, shard)
		} else {
			err = writePickles(ctx, dir, tensors, same, shard)
		}
		return err
	})
}

// writePickles is safetensors.WriteSharded in PyTorch's own format. Tensors that are the same share a storage.
func writePickles(ctx context.Context, dir string, tensors []safetensors.Source, same []any, o safetensors.ShardOptions) error {
	storages := map[any]*pickle.Storage{}
	var named []pickle.Named
	for i, t := range tensors {
		x := &pickle.Tensor{DType: pickle.DType(dtypeOf(t.DType).String()), Shape: t.Shape, Strides: make([]int, len(t.Shape))}
		n := 1
		for d := len(t.Shape) - 1; d >= 0; d-- {
			x.Strides[d] = n
			n *= max(t.Shape[d], 1)
		}
		if x.Storage = storages[same[i]]; x.Storage == nil {
			size, err := weights.ByteSize(t.DType, t.Shape)
			if err != nil {
				return inFile(err, dir)
			}
			x.Storage = &pickle.Storage{Bytes: size, Data: pickle.Made(t.Write)}
			storages[same[i]] = x.Storage
		}
		named = append(named, pickle.Named{Name: t.Name, Tensor: x})
	}
	_, err := pickle.WriteSharded(ctx, dir, named, pickle.ShardOptions{MaxShardBytes: o.MaxShardBytes, Variant: o.Variant,
		TotalParameters: o.TotalParameters, Documents: o.Documents})
	return err
}

// isCheckpointFile reports whether SavePretrained or its readers give a name a meaning.
func isCheckpointFile(name string) bool {
	return name == "config.json" || name == generationFile || strings.HasPrefix(name, ".") ||
		strings.HasSuffix(name, ".safetensors") || strings.HasPrefix(name, "pytorch_model") || strings.Contains(name, ".index.")
}

// writeFolder writes a checkpoint with its documents into a folder that need not exist yet.
func writeFolder(dir string, config Config, set map[string]any, generation []byte,
	documents []safetensors.Document, write func(documents []safetensors.Document) error) error {
	if generation != nil {
		documents = append(documents, safetensors.Document{Name: generationFile, Data: generation})
	}
	documents = append(documents, safetensors.Document{Name: "config.json", Data: configJSON(config, set),
		Pointing: func(weights string) []byte {
			pointing := maps.Clone(set)
			pointing["transformers_weights"] = weights
			return configJSON(config, pointing)
		}})
	return inFolder(dir, func() error { return write(documents) })
}

// inFolder has write write into a folder that need not exist yet, and is not made for nothing.
func inFolder(dir string, write func() error) (err error) {
	if st, err := os.Stat(dir); err == nil && !st.IsDir() {
		return &Error{File: dir, Class: ErrArgument, Expected: "a directory", Actual: "a file"}
	}
	made, err := makeDir(dir)
	defer func() {
		if err != nil {
			for _, d := range made {
				_ = os.Remove(d) // which it does if nothing is in it
			}
		}
	}()
	if err != nil {
		return err
	}
	return write()
}

// makeDir makes a directory and its parents, and tells which of them it made, the innermost first.
func makeDir(dir string) (made []string, err error) {
	for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		made = append(made, d)
	}
	err = os.MkdirAll(dir, 0o777)
	for _, d := range made {
		if err == nil {
			err = atomicfile.SyncDir(filepath.Dir(d))
		}
	}
	if err != nil {
		return made, &Error{File: dir, Err: pathCause(err)}
	}
	return made, nil
}
