package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/torchgo/torchgo/cmd/torchgo/internal/cli"
	"github.com/torchgo/torchgo/internal/atomicfile"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/gguf"
	"github.com/torchgo/torchgo/torch"
)

// ggufName is the file that convert writes in a folder.
const ggufName = "model.gguf"

// runGGUF is convert --format gguf.
func (m *modelFlags) runGGUF(ctx context.Context, app *cli.App, src, dst, typeName string) error {
	c, report, err := m.convertGGUF(ctx, app, src, dst, typeName)
	if err != nil {
		return err
	}
	return c.print(app, report)
}

// convertGGUF writes dst, a .gguf file or a folder for one, with tensors of a type, "" for that of the dtype. A GGUF file is
// rewritten as it is, whatever model is in it.
func (m *modelFlags) convertGGUF(ctx context.Context, app *cli.App, src, dst, typeName string) (*converted, *pretrained.Report, error) {
	start := time.Now()
	var typ torch.Opt[gguf.Type]
	if typeName != "" {
		t, err := gguf.ParseType(typeName)
		if err != nil {
			return nil, nil, cli.Usagef("--gguf-type: %v", err)
		}
		typ = torch.Some(t)
	}
	path := dst
	if !strings.HasSuffix(dst, ".gguf") {
		path = filepath.Join(dst, ggufName)
	}
	c := &converted{Source: src, Destination: dst, Files: []string{filepath.Base(path)}, Copied: []string{},
		MissingKeys: []string{}, UnexpectedKeys: []string{}, MismatchedKeys: []pretrained.Mismatch{}}
	old, err := m.openGGUF(src)
	if err != nil {
		return nil, nil, err
	}
	folder := filepath.Dir(path)
	if _, statErr := os.Stat(folder); errors.Is(statErr, fs.ErrNotExist) {
		defer func() { _ = os.Remove(folder) }() // if nothing is in it
	}
	var report *pretrained.Report
	if old != nil {
		defer old.Close()
		err = rewriteGGUF(ctx, old, path, typ)
	} else {
		report, err = m.saveGGUF(ctx, app, src, dst, path, typ, c)
	}
	if err != nil {
		return nil, nil, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	c.Bytes, c.Seconds = st.Size(), time.Since(start).Seconds()
	return c, report, nil
}

// openGGUF opens the source if it is a GGUF file that no flag of loading is to change.
func (m *modelFlags) openGGUF(src string) (*gguf.File, error) {
	path := src
	if m.ggufFile != "" {
		path = filepath.Join(src, filepath.FromSlash(m.subfolder), filepath.FromSlash(m.ggufFile))
	}
	for _, name := range []string{"class", "dtype", "config", "key-mapping", "adapter"} {
		if m.flags.Changed(name) {
			return nil, nil
		}
	}
	if st, err := os.Stat(path); err != nil || st.IsDir() {
		return nil, nil // of the hub, or a folder of another format
	}
	f, err := gguf.Open(path)
	if errors.Is(err, gguf.ErrBadMagic) {
		return nil, nil
	}
	return f, err
}

// rewriteGGUF copies a file with all metadata; tensors of two dimensions and more that aren't integers get the type.
func rewriteGGUF(ctx context.Context, f *gguf.File, path string, typ torch.Opt[gguf.Type]) error {
	sources, metadata := f.Sources(), f.Metadata().Clone()
	if t, ok := typ.Get(); ok {
		for i := range sources {
			s := &sources[i]
			if len(s.Shape) < 2 || !s.From.CanDequantize() {
				continue
			}
			s.Type = t
			if s.Shape[len(s.Shape)-1]%t.BlockLen() != 0 {
				s.Type = gguf.F16
			}
		}
		pretrained.SetGGUFType(metadata, t)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	return gguf.WriteFile(ctx, path, metadata, sources)
}

// saveGGUF loads a model and writes the file, and what belongs to the model beside it if that is in a folder.
func (m *modelFlags) saveGGUF(ctx context.Context, app *cli.App, src, dst, path string, typ torch.Opt[gguf.Type], c *converted) (*pretrained.Report, error) {
	loading, err := m.options(app, "loading")
	if err != nil {
		return nil, err
	}
	if err := m.start(); err != nil {
		return nil, err
	}
	model, report, err := pretrained.Load(ctx, src, loading)
	if err != nil {
		return nil, inFlags(err)
	}
	defer model.Close()
	c.Class, c.DType = report.Class, report.DType
	c.MissingKeys, c.UnexpectedKeys, c.MismatchedKeys = nonNil(report.MissingKeys), nonNil(report.UnexpectedKeys), nonNil(report.MismatchedKeys)
	o := pretrained.GGUFOptions{Type: typ}
	if bars := app.Progress(); bars != nil {
		o.Progress = func(done, total int64) { bars.Bytes("saving", done, total) }
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return nil, err
	}
	if err := pretrained.SaveGGUF(ctx, model, path, o); err != nil {
		return nil, err
	}
	if path == dst || sameFolder(report.Folder, dst) {
		return report, nil
	}
	files, err := companions(report.Folder)
	if err != nil {
		return nil, err
	}
	for name, data := range files {
		to := filepath.Join(dst, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
			return nil, err
		}
		if err := atomicfile.WriteFile(to, data, 0o666); err != nil {
			return nil, err
		}
		c.Copied = append(c.Copied, name)
	}
	slices.Sort(c.Copied)
	return report, nil
}
