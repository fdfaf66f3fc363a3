package safetensors

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/torchgo/torchgo/internal/strictjson"
	"github.com/torchgo/torchgo/internal/weights"
)

// DefaultShardBytes is transformers' max_shard_size, "50GB".
const DefaultShardBytes = 50_000_000_000

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

// ParseSize reads a size as "5GB": a number and TB, GB, MB or KB, which are powers of 1000.
func ParseSize(s string) (int64, error) {
	s = strings.TrimSpace(s)
	number, unit := s, ""
	if r := []rune(s); len(r) >= 2 {
		number, unit = string(r[:len(r)-2]), strings.ToUpper(string(r[len(r)-2:]))
	} else {
		unit = strings.ToUpper(s)
	}
	scale := map[string]float64{"TB": 1e12, "GB": 1e9, "MB": 1e6, "KB": 1e3}[unit]
	if scale == 0 {
		//lint:ignore ST1005 these are transformers' words, which scripts know
		return 0, fmt.Errorf("Unit '%s' not supported. Supported units are TB, GB, MB, KB. Got '%s'.", unit, s)
	}
	value, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if bytes := value * scale; err == nil && bytes >= 0 && bytes < math.MaxInt64 {
		return int64(bytes), nil
	}
	return 0, fmt.Errorf("size %q: expected a number before the unit %s, got %q", s, unit, number)
}

// split distributes tensors as transformers does: in their order, as many to a file as fit; a tensor that
// is larger than the limit gets a file of its own, and the file before it stays open for the next ones.
func split(tensors []Source, limit int64) ([][]Source, error) {
	var shards [][]Source
	var current []Source
	var used int64
	for _, t := range tensors {
		size, err := weights.ByteSize(t.DType, t.Shape)
		if err != nil {
			err.(*Error).Tensor = t.Name
			return nil, err
		}
		if size > limit {
			shards = append(shards, []Source{t})
			continue
		}
		if used+size > limit {
			shards = append(shards, current)
			current, used = nil, 0
		}
		current = append(current, t)
		used += size
	}
	if len(current) > 0 || len(shards) == 0 {
		shards = append(shards, current)
	}
	return shards, nil
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

// encodeIndex gives the bytes that transformers writes.
func encodeIndex(shards [][]Source, names []string, parameters int64) []byte {
	files := &strictjson.Object{}
	var bytes, elements int64
	for i, shard := range shards {
		for _, t := range shard {
			files.Set(t.Name, strictjson.String(names[i]))
			size, _ := weights.ByteSize(t.DType, t.Shape)
			bytes += size
			elements += int64(TensorInfo{Shape: t.Shape}.Numel())
		}
	}
	if parameters == 0 {
		parameters = elements
	}
	metadata, root := &strictjson.Object{}, &strictjson.Object{}
	metadata.Set("total_parameters", strictjson.Int(parameters))
	metadata.Set("total_size", strictjson.Int(bytes))
	root.Set("metadata", metadata.Value())
	root.Set("weight_map", files.Value())
	return append(strictjson.Format{Indent: 2, SortKeys: true}.Append(nil, root.Value()), '\n')
}
