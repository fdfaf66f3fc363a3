package pretrained

import (
	"context"
	"io"

	"github.com/torchgo/torchgo/internal/pyjson"
	"github.com/torchgo/torchgo/pretrained/checkpoint"
	"github.com/torchgo/torchgo/pretrained/safetensors"
)

// Rewrite saves the checkpoint of one folder in another, by what SavePretrained does once it has the tensors:
// it needs no libtorch, so that a process which does it starts in no time.
func Rewrite(ctx context.Context, from, to string, shard safetensors.ShardOptions) error {
	f, err := resolve(ctx, from, Options{})
	if err != nil {
		return err
	}
	arch, class, err := choose("", f.raw)
	if err != nil {
		return err
	}
	config := arch.NewConfig()
	if err := readConfig(config, f.raw, nil); err != nil {
		return err
	}
	c, err := checkpoint.Open(f.weights)
	if err != nil {
		return err
	}
	defer c.Close()
	var tensors []safetensors.Source
	for file, info := range c.All() {
		tensors = append(tensors, safetensors.Source{Name: info.Name, DType: info.DType, Shape: info.Shape, Write: func(w io.Writer) error {
			data := make([]byte, info.Bytes)
			if err := file.ReadTensor(info.Name, data); err != nil {
				return err
			}
			_, err := w.Write(data)
			return err
		}})
	}
	return writeFolder(to, config, map[string]any{"architectures": []string{class.Name}, "dtype": config.Base().DType}, nil, shard.Documents, func(documents []safetensors.Document) error {
		shard.Documents = documents
		_, err := safetensors.WriteSharded(ctx, to, tensors, shard)
		return err
	})
}

// Readers is how many read at once.
func Readers(opts Options) int { return (&loader{opts: opts}).workers() }

// ForgetWarnings lets warnings that are given once be given again.
func ForgetWarnings() { warned.Clear() }

// RewriteGeneration reads a generation_config.json and gives it as it would be saved.
func RewriteGeneration(data []byte) ([]byte, error) {
	values, err := pyjson.Parse(data)
	if err != nil {
		return nil, err
	}
	g, err := NewGenerationConfig(values)
	if err != nil {
		return nil, err
	}
	g.modified = false
	return g.json()
}

// TagCard is tagCard.
func TagCard(card []byte, tags []string) ([]byte, error) { return tagCard(card, tags) }

// WarmUpBytes is what to allocate on a GPU before its weights come.
var WarmUpBytes = warmUpBytes
