package modelfolder

import (
	"context"

	"github.com/torchgo/torchgo/internal/atomicfile"
	"github.com/torchgo/torchgo/internal/fileerr"
)

// WriteBeside writes one file of weights, under any name, which stage writes as Shard.Stage does, and the documents that go
// with it into a folder that exists. Other files there stay. All are complete and on the disk under temporary names before
// the first one gets its own. Then the weights get theirs, and after them the documents.
func WriteBeside(ctx context.Context, dir, name string, stage func(context.Context, string, func() (*atomicfile.File, error)) error, documents ...Document) (err error) {
	folder, err := atomicfile.OpenFolder(ctx, dir)
	if err != nil {
		return fileerr.Writing(dir, err)
	}
	defer func() {
		if closeErr := folder.Close(); err == nil {
			err = fileerr.Writing(dir, closeErr)
		}
	}()
	s := &save{Folder: folder, documents: documents}
	if err := stage(ctx, s.path(name), func() (*atomicfile.File, error) { return s.Create(name, name) }); err != nil {
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
