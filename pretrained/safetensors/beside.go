package safetensors

import (
	"context"
	"path/filepath"

	"github.com/torchgo/torchgo/internal/atomicfile"
)

// WriteBeside writes one file of weights, under any name, with the documents that go with it into a folder that exists.
// Other files there stay. All are complete and on the disk under temporary names before the first one gets its own, so
// an error until then leaves the folder as it was. Then the weights get theirs, and after them the documents: a process
// that is stopped between the two leaves new weights beside old documents.
func WriteBeside(ctx context.Context, dir, name string, tensors []Source, metadata map[string]string, documents ...Document) (err error) {
	if err := noDuplicates(tensors); err != nil {
		return inFile(err, filepath.Join(dir, name))
	}
	folder, err := atomicfile.OpenFolder(ctx, dir)
	if err != nil {
		return writeError(dir, err)
	}
	defer func() {
		if closeErr := folder.Close(); err == nil {
			err = writeError(dir, closeErr)
		}
	}()
	s := &save{Folder: folder, documents: documents}
	if _, err := stage(ctx, s.path(name), tensors, metadata, false, func() (*atomicfile.File, error) { return s.Create(name, name) }); err != nil {
		return err
	}
	if err := s.stageDocuments(false); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil { // the last chance to leave everything as it was
		return err
	}
	if err := s.rename(name, name); err != nil {
		return err
	}
	for _, doc := range s.documents {
		if err := s.rename(flat(doc.Name), doc.Name); err != nil {
			return err
		}
	}
	folder.Done()
	return nil
}
