// Package modelfolder writes the checkpoint of a model into a folder: weights of any format in one file or in shards with
// their index, and the documents beside them, so that a reader finds the old checkpoint or the new one.
package modelfolder

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/internal/atomicfile"
	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/regular"
)

// Error says what went wrong with a file.
type Error = fileerr.Error

// Document is a file that belongs to a checkpoint, as config.json does.
type Document struct {
	Name string // in the folder, with slashes if in one below it
	Data []byte

	// Pointing gives a form of the file that sends its reader to weights of another name: those that
	// Find would give, or an index that names shards of other names. If it is nil, there is none.
	Pointing func(weights string) []byte
}

// Tensor is what dividing into shards, and the index, need to know of a tensor.
type Tensor struct {
	Name  string
	Bytes int64 // 0 if its bytes are those of another one
	Numel int64
}

// Shard is a file of weights to be written.
type Shard struct {
	Tensors []Tensor

	// Stage writes the file under a temporary name, which create gives it, and brings it to the disk. path is its name in the
	// end, for errors.
	Stage func(ctx context.Context, path string, create func() (*atomicfile.File, error)) error
}

// Checkpoint is what is to be written.
type Checkpoint struct {
	Single string // the name of the file if there is one shard: "model.safetensors"
	Index  string // that of the index if there are more
	Shards []Shard
	Hiding []string // names of other files that readers would find in its place

	Variant         bool       // readers of others share the documents
	TotalParameters int64      // for the index; 0: all elements
	Documents       []Document // files that are replaced together with the weights
}

// Write writes a checkpoint into a folder that exists: one file, or shards named <Single>-00001-of-0000N and the index; and
// the documents that go with it. It returns the names of the weight files.
//
// All files are complete and on the disk under temporary names before the first one gets its own; so an
// error until then (disk full, a tensor that can't be read) leaves the folder as it was. Then one rename
// makes the new checkpoint the one that is found, the temporary names give way to the usual ones, and what
// is left of the old one goes. A process that is stopped at any point leaves a folder in which the old
// checkpoint is found or the new one, whole; the next save removes its temporary files. Savers of one
// folder wait for each other.
func Write(ctx context.Context, dir string, c Checkpoint) (_ []string, err error) {
	folder, err := atomicfile.OpenFolder(ctx, dir)
	if err != nil {
		return nil, fileerr.Writing(dir, err)
	}
	ext := filepath.Ext(c.Single)
	s := &save{Folder: folder, single: c.Single, index: c.Index, prefix: strings.TrimSuffix(c.Single, ext), ext: ext, documents: c.Documents}
	defer func() {
		for _, d := range s.made {
			_ = os.Remove(d) // which it does where nothing came into it
		}
		if closeErr := folder.Close(); err == nil {
			err = fileerr.Writing(dir, closeErr)
		}
	}()
	for _, name := range c.Hiding {
		if s.exists(name) {
			return nil, &Error{Class: fileerr.ErrConflict, File: s.path(name), Detail: "readers would find it in place of " + c.Single,
				Remedy: "save into another folder, or remove it"}
		}
	}
	if !c.Variant && IsDistributed(dir) {
		return nil, &Error{Class: fileerr.ErrConflict, File: dir, Detail: "it holds a distributed checkpoint, which readers would find in place of " + c.Single,
			Remedy: "save into another folder, or remove its shard-*.safetensors"}
	}
	if err := s.stage(ctx, c); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil { // the last chance to leave everything as it was
		return nil, err
	}
	// From here on a failure can't be taken back, as files of the old checkpoint go. But each step may be
	// done again.
	err = s.publish()
	if err != nil && s.switched {
		err = s.publish()
	}
	if err != nil {
		return nil, err
	}
	folder.Done()
	names := s.names
	if s.sharded() {
		names = append(names, s.index)
	}
	return names, nil
}

// save is a checkpoint on its way into a folder.
type save struct {
	*atomicfile.Folder
	names         []string // of the files with tensors
	single, index string
	prefix, ext   string // of single
	documents     []Document
	pointed       *Document // that sends readers to the temporary names meanwhile
	moved         bool      // the old index has to give way to one of temporary names
	switched      bool      // the new checkpoint is the one that is found
	made          []string  // directories for documents
}

func (s *save) sharded() bool { return len(s.names) > 1 }

// Keys of temporary files beside those of the files' own names.
const (
	secondKey  = "2-"      // another name of the same file
	movedKey   = "moved-"  // an index that names shards by their temporary names
	pointedKey = "points-" // a document that names weights by their temporary name
)

func (s *save) path(name string) string { return filepath.Join(s.Dir(), name) }

func (s *save) exists(name string) bool {
	_, err := os.Lstat(s.path(name))
	return err == nil
}

// stage brings all files to the disk under temporary names.
func (s *save) stage(ctx context.Context, c Checkpoint) error {
	for i, shard := range c.Shards {
		name := s.single
		if len(c.Shards) > 1 {
			name = fmt.Sprintf("%s-%05d-of-%05d%s", s.prefix, i+1, len(c.Shards), s.ext)
		}
		if err := shard.Stage(ctx, s.path(name), func() (*atomicfile.File, error) { return s.Create(name, name) }); err != nil {
			return err
		}
		s.names = append(s.names, name)
	}
	s.moved = s.sharded() && s.exists(s.index) && !s.exists(s.single)
	if err := s.stageDocuments(!c.Variant); err != nil {
		return err
	}
	linked := s.names
	if s.sharded() {
		temps := make([]string, len(s.names))
		for i, name := range s.names {
			temps[i] = s.Temp(name)
		}
		if err := s.write(s.index, s.index, c.encodeIndex(s.names)); err != nil {
			return err
		}
		if err := s.write(s.index, movedKey+s.index, c.encodeIndex(temps)); err != nil {
			return err
		}
		linked = append(linked, movedKey+s.index)
	}
	for _, key := range linked {
		if s.stays() {
			if err := s.Link(key, secondKey+key); err != nil {
				return fileerr.Writing(s.path(strings.TrimPrefix(key, movedKey)), err)
			}
		}
	}
	return fileerr.Writing(s.Dir(), s.Sync())
}

// stays reports whether files must be readable under their temporary names until the end.
func (s *save) stays() bool { return s.moved || s.pointed != nil }

// stageDocuments stages those documents that differ from what is there, and the one that can point. That one
// is of no use where no old one leads a reader to the old weights; and the readers of other variants
// must not be sent to this one.
func (s *save) stageDocuments(mayPoint bool) error {
	var changed []Document
	for _, doc := range s.documents {
		old, err := regular.Read(s.path(doc.Name), int64(len(doc.Data)))
		if err == nil && bytes.Equal(old, doc.Data) {
			continue
		}
		changed = append(changed, doc)
		if err := s.makeFolder(doc.Name); err != nil {
			return err
		}
		if err := s.write(doc.Name, flat(doc.Name), doc.Data); err != nil {
			return err
		}
		if doc.Pointing == nil || s.pointed != nil || !mayPoint || !s.exists(doc.Name) {
			continue
		}
		weights := s.single
		if s.sharded() {
			weights = movedKey + s.index
		}
		if err := s.write(doc.Name, pointedKey+doc.Name, doc.Pointing(s.Temp(weights))); err != nil {
			return err
		}
		s.pointed = &doc
	}
	s.documents = changed
	return nil
}

// makeFolder makes the directory of a document below the folder.
func (s *save) makeFolder(name string) error {
	if err := fileerr.CheckName(name); err != nil {
		return fileerr.InFile(err, s.Dir())
	}
	if dir := filepath.Dir(s.path(name)); dir != filepath.Clean(s.Dir()) && os.Mkdir(dir, 0o777) == nil {
		s.made = append(s.made, dir)
	}
	return nil // writing will tell if there is none
}

// flat is the key of a document's temporary file, which is in the folder itself.
func flat(name string) string { return strings.ReplaceAll(name, "/", "-") }

func (s *save) write(name, key string, data []byte) error {
	return fileerr.Writing(s.path(name), s.WriteFile(name, key, data))
}

// publish makes the new checkpoint the one that is found, then gives all files their names. The old one is
// found until the first rename that a reader sees, which sets switched.
func (s *save) publish() error {
	if s.pointed != nil {
		if err := s.rename(pointedKey+s.pointed.Name, s.pointed.Name); err != nil {
			return err
		}
	}
	if err := s.publishWeights(); err != nil {
		return err
	}
	for _, doc := range s.documents {
		if err := s.rename(flat(doc.Name), doc.Name); err != nil {
			return err
		}
	}
	return nil
}

// rename gives a file its name, and lets nothing that follows happen before that is on the disk.
func (s *save) rename(key, name string) error {
	err := s.Rename(key, name)
	if err == nil {
		s.switched = true
		if err = s.Sync(); err == nil && strings.Contains(name, "/") {
			err = atomicfile.SyncDir(filepath.Dir(s.path(name)))
		}
	}
	return fileerr.Writing(s.path(name), err)
}

func (s *save) publishWeights() error {
	second := ""
	if s.stays() {
		second = secondKey
	}
	if !s.sharded() {
		if err := s.rename(second+s.single, s.single); err != nil {
			return err
		}
		return s.removeOld()
	}
	if s.moved { // from the old index to the new one before old shards go
		if err := s.rename(second+movedKey+s.index, s.index); err != nil {
			return err
		}
	}
	for _, name := range s.names { // nobody looks at these names: the index names others, or is hidden or not there
		if err := s.Rename(second+name, name); err != nil {
			return fileerr.Writing(s.path(name), err)
		}
		s.switched = true
	}
	if err := fileerr.Writing(s.Dir(), s.Sync()); err != nil {
		return err
	}
	if err := s.rename(s.index, s.index); err != nil {
		return err
	}
	return s.removeOld()
}

// removeOld removes what an earlier checkpoint of the same name left in the folder. The single file or
// index that readers would find goes first, so that it never names what isn't there.
func (s *save) removeOld() error {
	kept := map[string]bool{}
	for _, name := range s.names {
		kept[name] = true
	}
	entries, err := os.ReadDir(s.Dir())
	if err != nil {
		return fileerr.Writing(s.Dir(), err)
	}
	shard := regexp.MustCompile("^" + regexp.QuoteMeta(s.prefix) + `-\d{5}-of-\d{5}` + regexp.QuoteMeta(s.ext) + `$`)
	old := []string{s.single}
	if !s.sharded() {
		old[0] = s.index
	}
	for _, e := range entries {
		if shard.MatchString(e.Name()) && !kept[e.Name()] && (e.Type().IsRegular() || e.Type()&fs.ModeSymlink != 0) {
			old = append(old, e.Name())
		}
	}
	for i, name := range old {
		if err := s.Remove(name); err != nil {
			return &Error{File: s.path(name), Detail: "remove", Err: fileerr.Cause(err)}
		}
		if i == 0 || i == len(old)-1 {
			if err := s.Sync(); err != nil {
				return fileerr.Writing(s.Dir(), err)
			}
		}
	}
	return nil
}

var distributedName = regexp.MustCompile(`^shard-[0-9]{5}-model-[0-9]{5}-of-[0-9]{5}\.safetensors$`)

// IsDistributed reports whether a folder holds a distributed checkpoint (torch.distributed.checkpoint) in its safetensors
// form, which is found before all others.
func IsDistributed(dir string) bool {
	entries, _ := os.ReadDir(dir)
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool { return distributedName.MatchString(e.Name()) })
}
