package safetensors

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/torchgo/torchgo/internal/atomicfile"
	"github.com/torchgo/torchgo/internal/strictjson"
)

// DefaultShardBytes is transformers' max_shard_size, "50GB".
const DefaultShardBytes = 50_000_000_000

// ShardOptions are the options of WriteSharded.
type ShardOptions struct {
	MaxShardBytes   int64             // default DefaultShardBytes; see ParseSize
	Variant         string            // as in Layout
	Metadata        map[string]string // of each file; transformers writes {"format": "pt"}
	TotalParameters int64             // for the index; default: all elements written
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
		size, err := byteSize(t.DType, t.Shape)
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

// WriteSharded writes a checkpoint into a folder that exists: model.safetensors if it fits into one file, else
// model-00001-of-0000N.safetensors, … and the index. It returns the names of the files.
//
// All files are complete and on the disk under temporary names before the first one gets its own; so an
// error until then (disk full, a tensor that can't be read) leaves an old checkpoint as it was. Then come
// the shards, the index last; then files that would shadow the new checkpoint or belonged to the old one
// are removed: its shards, its index, its single file. If old shards have the names of new ones, the old
// index goes first: a crash in between leaves a folder that doesn't load, not one that mixes two models.
func WriteSharded(ctx context.Context, dir string, tensors []Source, o ShardOptions) (_ []string, err error) {
	if o.MaxShardBytes == 0 {
		o.MaxShardBytes = DefaultShardBytes
	}
	single, index := fileNames(o.Variant)
	if err := checkFileName(single); err != nil || strings.Contains(o.Variant, "/") {
		return nil, &Error{Class: ErrPath, File: dir, Detail: "variant", Actual: fmt.Sprintf("%.80q", o.Variant)}
	}
	if err := noDuplicates(tensors); err != nil {
		return nil, inFile(err, filepath.Join(dir, single))
	}
	shards, err := split(tensors, o.MaxShardBytes)
	if err != nil {
		return nil, inFile(err, dir)
	}
	prefix := strings.TrimSuffix(single, ".safetensors")
	var names []string
	var staged []*atomicfile.File
	defer func() {
		for _, f := range staged {
			f.Abort()
		}
	}()
	for i, shard := range shards {
		name := single
		if len(shards) > 1 {
			name = fmt.Sprintf("%s-%05d-of-%05d.safetensors", prefix, i+1, len(shards))
		}
		f, err := stage(ctx, filepath.Join(dir, name), shard, o.Metadata)
		if err != nil {
			return nil, err
		}
		names, staged = append(names, name), append(staged, f)
	}
	if len(shards) > 1 {
		path := filepath.Join(dir, index)
		f, err := atomicfile.Create(path, 0o666)
		if err != nil {
			return nil, writeError(path, err)
		}
		staged = append(staged, f)
		if _, err := f.Write(encodeIndex(shards, names, o.TotalParameters)); err != nil {
			return nil, writeError(path, err)
		}
		if err := f.Finish(); err != nil {
			return nil, writeError(path, err)
		}
		for _, name := range names {
			if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
				if err := remove(dir, index); err != nil {
					return nil, err
				}
				break
			}
		}
		names = append(names, index)
	}
	if err := ctx.Err(); err != nil { // the last chance to leave everything as it was
		return nil, err
	}
	for i, f := range staged {
		if err := f.Commit(); err != nil {
			return nil, writeError(filepath.Join(dir, names[i]), err)
		}
	}
	return names, removeOld(dir, prefix, names, single, index)
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
	weights := &strictjson.Object{}
	var bytes, elements int64
	for i, shard := range shards {
		for _, t := range shard {
			weights.Set(t.Name, strictjson.String(names[i]))
			size, _ := byteSize(t.DType, t.Shape)
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
	root.Set("weight_map", weights.Value())
	return append(strictjson.Format{Indent: 2, SortKeys: true}.Append(nil, root.Value()), '\n')
}

// removeOld removes what an earlier checkpoint of the same name left in the folder.
func removeOld(dir, prefix string, keep []string, single, index string) error {
	kept := make(map[string]bool, len(keep))
	for _, name := range keep {
		kept[name] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return writeError(dir, err)
	}
	shard := regexp.MustCompile("^" + regexp.QuoteMeta(prefix) + `-\d{5}-of-\d{5}\.safetensors$`)
	// The index before its shards, so that it never names what isn't there.
	old := []string{index, single}
	for _, e := range entries {
		if shard.MatchString(e.Name()) && (e.Type().IsRegular() || e.Type()&fs.ModeSymlink != 0) {
			old = append(old, e.Name())
		}
	}
	for _, name := range old {
		if !kept[name] {
			if err := remove(dir, name); err != nil {
				return err
			}
		}
	}
	return nil
}

func remove(dir, name string) error {
	path := filepath.Join(dir, name)
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = atomicfile.SyncDir(dir)
	}
	if err != nil {
		return &Error{File: path, Detail: "remove", Err: cause(err)}
	}
	return nil
}
