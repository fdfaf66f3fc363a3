package modelfolder

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/torchgo/torchgo/internal/strictjson"
)

// DefaultShardBytes is transformers' max_shard_size, "50GB".
const DefaultShardBytes = 50_000_000_000

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

// Split distributes tensors of these sizes as transformers does: in their order, as many to a file as fit; a tensor that
// is larger than the limit gets a file of its own, and the file before it stays open for the next ones.
func Split(sizes []int64, limit int64) (shards [][]int) {
	var current []int
	var used int64
	for i, size := range sizes {
		if size > limit {
			shards = append(shards, []int{i})
			continue
		}
		if used+size > limit {
			shards = append(shards, current)
			current, used = nil, 0
		}
		current = append(current, i)
		used += size
	}
	if len(current) > 0 || len(shards) == 0 {
		shards = append(shards, current)
	}
	return shards
}

// encodeIndex gives the bytes that transformers writes.
func (c *Checkpoint) encodeIndex(names []string) []byte {
	files := &strictjson.Object{}
	var bytes, elements int64
	for i, shard := range c.Shards {
		for _, t := range shard.Tensors {
			files.Set(t.Name, strictjson.String(names[i]))
			bytes += t.Bytes
			elements += t.Numel
		}
	}
	parameters := c.TotalParameters
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
