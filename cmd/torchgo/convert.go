package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/torchgo/torchgo/cmd/torchgo/internal/cli"
	"github.com/torchgo/torchgo/internal/regular"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/checkpoint"
	"github.com/torchgo/torchgo/pretrained/hub"
	"github.com/torchgo/torchgo/pretrained/peft"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
)

func init() { cli.Register(newConvert) }

// formats are the values of --format.
var formats = []string{"safetensors", "original", "gguf", "bin"}

// maxCompanion bounds the files that are copied along.
const maxCompanion = 64 << 20

// converted is what convert did, as --json prints it.
type converted struct {
	Class          string                `json:"class"`
	DType          string                `json:"dtype"`
	Source         string                `json:"source"`
	Adapter        string                `json:"adapter,omitempty"` // that was merged
	Destination    string                `json:"destination"`
	Files          []string              `json:"files"`  // of the checkpoint
	Copied         []string              `json:"copied"` // as they were beside the source
	Bytes          int64                 `json:"bytes"`  // of Files
	MissingKeys    []string              `json:"missing_keys"`
	UnexpectedKeys []string              `json:"unexpected_keys"`
	MismatchedKeys []pretrained.Mismatch `json:"mismatched_keys"`
	Seconds        float64               `json:"seconds"`
}

func newConvert(app *cli.App) *cobra.Command {
	var model *modelFlags
	var shard, format, ggufType string
	var compress bool
	cmd := &cobra.Command{
		Use:   "convert SRC DST",
		Short: "Load a model and save it (save_pretrained): another dtype, other shards, another format",
		Long: `convert loads a model and saves it in the folder DST, with the tokenizer's and other small files that are
beside SRC. DST gets the new checkpoint whole or stays as it was; it may be SRC itself, of which nothing but
the checkpoint is touched then.

A DST that is named like a file (.safetensors, .bin, .pt, .pth) gets the weights of SRC as they are, of any
format; that needs neither a model nor libtorch.

--format original (the default, as in transformers) gives tensors the names and shapes that they had in SRC's
files, safetensors those of the model's own state dict. They differ where loading renames or joins tensors.
bin is original in PyTorch's own format: pytorch_model.bin, or shards of it.

--format gguf, or a DST whose name ends in .gguf, writes a GGUF file: DST itself, or model.gguf in the folder DST. Tensors of two dimensions and
more get the type --gguf-type, by default that of the dtype. Of a GGUF file everything is kept, metadata and
tokenizer too, and no model is loaded.

An adapter of package peft as SRC is saved as one; merge makes a model of it and its base.

--compress makes the files smaller without loss, bfloat16 by about a third. Only torchgo reads them then; convert
without it makes files that everybody reads again.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if convertsFile(args[1]) {
				return convertFile(app, cmd, args[0], args[1])
			}
			if st, err := os.Stat(args[1]); filepath.Ext(args[1]) == ".gguf" && !cmd.Flags().Changed("format") && (err != nil || !st.IsDir()) {
				format = "gguf"
			}
			if !slices.Contains(formats, format) {
				return cli.Usagef("--format: expected safetensors, original, gguf or bin, got %q", format)
			}
			if format != "gguf" && ggufType != "" {
				return cli.Usagef("--gguf-type: is for --format gguf")
			}
			if format == "gguf" {
				if shard != "" || compress {
					return cli.Usagef("--format gguf: is one file, without --max-shard-size or --compress")
				}
				return model.runGGUF(cmd.Context(), app, args[0], args[1], ggufType)
			}
			o := pretrained.SaveOptions{MaxShardSize: shard, SaveOriginalFormat: torch.Some(format != "safetensors"),
				SafeSerialization: torch.Some(format != "bin"), Compress: compress}
			if format == "bin" && compress {
				return cli.Usagef("--compress: not with --format bin")
			}
			if shard != "" {
				if _, err := safetensors.ParseSize(shard); err != nil {
					return cli.Usagef("--max-shard-size: %v", err)
				}
			}
			if bars := app.Progress(); bars != nil {
				o.Progress = func(done, total int64) { bars.Bytes("saving", done, total) }
			}
			c, report, err := model.convert(cmd.Context(), app, args[0], args[1], o, nil)
			if err != nil {
				return err
			}
			return c.print(app, report)
		},
	}
	model = addModelFlags(cmd)
	cmd.Flags().StringVar(&shard, "max-shard-size", "", "the largest shard, as 5GB, in powers of 1000 (default: 50GB)")
	cmd.Flags().StringVar(&format, "format", "original", "original, safetensors, gguf or bin")
	cmd.Flags().StringVar(&ggufType, "gguf-type", "", "with --format gguf: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0 or Q5_1")
	cmd.Flags().BoolVar(&compress, "compress", false, "smaller files without loss, for torchgo alone")
	return cmd
}

// print prints what was done, after the report on loading.
func (c *converted) print(app *cli.App, report *pretrained.Report) error {
	if app.JSON {
		return app.PrintJSON(c)
	}
	loaded := ""
	if report != nil {
		loaded = report.String()
	}
	_, err := fmt.Fprintf(app.Stdout, "%s%s: %s in %s%s\n", loaded, c.Destination, plural(c.Bytes, "byte"), plural(int64(len(c.Files)), "file"), alongWith(c.Copied))
	return err
}

func plural(n int64, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

func alongWith(copied []string) string {
	if len(copied) == 0 {
		return ""
	}
	return ", and " + strings.Join(copied, ", ")
}

// convert loads a model, changes it if it is to be, and saves it.
func (m *modelFlags) convert(ctx context.Context, app *cli.App, src, dst string, o pretrained.SaveOptions, change func(pretrained.Model) error) (*converted, *pretrained.Report, error) {
	start := time.Now()
	loading, err := m.options(app, "loading")
	if err != nil {
		return nil, nil, err
	}
	if err := m.start(); err != nil {
		return nil, nil, err
	}
	model, report, err := pretrained.Load(ctx, src, loading)
	if err != nil {
		return nil, nil, inFlags(err)
	}
	defer model.Close()
	if change != nil {
		if err := change(model); err != nil {
			return nil, nil, err
		}
	}
	adapter := len(model.PeftConfig()) > 0 // an adapter is saved as such, without what belongs to its base
	if _, err := os.Stat(src); errors.Is(err, fs.ErrNotExist) && !adapter {
		if err := fetchCompanions(ctx, src, report.Folder, loading); err != nil {
			return nil, nil, err
		}
	}
	c := &converted{Class: report.Class, DType: report.DType, Source: src, Destination: dst, MissingKeys: nonNil(report.MissingKeys),
		UnexpectedKeys: nonNil(report.UnexpectedKeys), MismatchedKeys: nonNil(report.MismatchedKeys), Files: []string{}, Copied: []string{}}
	if !sameFolder(report.Folder, dst) && !adapter {
		if o.Files, err = companions(report.Folder); err != nil {
			return nil, nil, err
		}
		for name := range o.Files {
			c.Copied = append(c.Copied, name)
		}
		slices.Sort(c.Copied)
	}
	if err := pretrained.SavePretrained(ctx, model, dst, o); err != nil {
		return nil, nil, err
	}
	layout := checkpoint.Layout{Only: checkpoint.Safetensors}
	if !o.SafeSerialization.Or(true) {
		layout.Only = checkpoint.Pickle
	}
	if adapter {
		c.Files = []string{peft.ConfigName, "adapter_model.safetensors"}
	} else if c.Files, err = checkpointFiles(dst, layout, model.GenerationConfig() != nil); err != nil {
		return nil, nil, err
	}
	for _, name := range c.Files {
		st, err := os.Stat(filepath.Join(dst, name))
		if err != nil {
			return nil, nil, err
		}
		c.Bytes += st.Size()
	}
	c.Seconds = time.Since(start).Seconds()
	return c, report, nil
}

func nonNil[T any](s []T) []T { return append([]T{}, s...) }

func sameFolder(a, b string) bool {
	x, errA := os.Stat(a)
	y, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(x, y)
}

// companions are the files that belong to a model and that saving does not write, from beside it and, for the
// modules of a sentence-transformers model, one folder below: of tokenizers, processors and chat templates,
// licence and model card.
func companions(dir string) (map[string][]byte, error) {
	files := map[string][]byte{}
	if err := addCompanions(files, dir, ""); err != nil {
		return nil, err
	}
	if files["modules.json"] != nil {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if e.IsDir() {
				if err := addCompanions(files, dir, e.Name()+"/"); err != nil {
					return nil, err
				}
			}
		}
	}
	return files, nil
}

// fetchCompanions brings the files that belong to a model of the hub beside its config in the cache, those of
// the same commit.
func fetchCompanions(ctx context.Context, id, folder string, o pretrained.Options) error {
	c, err := hub.New(hub.Options{CacheDir: o.CacheDir, Token: o.Token, NoToken: o.NoToken, Offline: o.LocalFilesOnly, Progress: o.DownloadProgress})
	if err != nil {
		return err
	}
	defer c.Close()
	_, commit, _ := strings.Cut(filepath.ToSlash(folder), "/snapshots/")
	commit, _, _ = strings.Cut(commit, "/")
	s, err := c.Resolve(ctx, hub.Repo{ID: id, Revision: commit})
	if err != nil {
		return err
	}
	list, err := s.List(ctx)
	if errors.Is(err, hub.ErrOffline) {
		return nil // what is in the cache has to do
	}
	if err != nil {
		return err
	}
	prefix := ""
	if o.Subfolder != "" {
		prefix = path.Clean(o.Subfolder) + "/"
	}
	modules := slices.ContainsFunc(list, func(e hub.Entry) bool { return e.Name == prefix+"modules.json" })
	var names []string
	for _, e := range list {
		inside, ok := strings.CutPrefix(e.Name, prefix)
		below, name := path.Split(inside)
		if depth := strings.Count(below, "/"); ok && (depth == 0 || depth == 1 && modules) && isCompanion(name, below) && e.Size <= maxCompanion {
			names = append(names, e.Name)
		}
	}
	return s.Files(ctx, names...)
}

func addCompanions(files map[string][]byte, dir, below string) error {
	entries, err := os.ReadDir(filepath.Join(dir, below))
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, below, e.Name())
		st, err := os.Stat(path) // through the links of the hub's cache
		if err != nil || !st.Mode().IsRegular() || st.Size() > maxCompanion || !isCompanion(e.Name(), below) {
			continue
		}
		if files[below+e.Name()], err = regular.Read(path, maxCompanion); err != nil {
			return err
		}
	}
	return nil
}

func isCompanion(name, below string) bool {
	switch {
	case below != "":
		return name == "config.json"
	case strings.HasPrefix(name, "."), strings.Contains(name, ".index."), name == "config.json", name == "generation_config.json", name == peft.ConfigName:
		return false
	case strings.HasPrefix(name, "LICENSE"), strings.HasPrefix(name, "NOTICE"), strings.HasPrefix(name, "README"):
		return true
	}
	return slices.Contains([]string{".json", ".jsonl", ".txt", ".model", ".jinja", ".tiktoken", ".md"}, filepath.Ext(name))
}

// checkpointFiles are the names of the files that saving wrote.
func checkpointFiles(dir string, layout checkpoint.Layout, generates bool) ([]string, error) {
	files := []string{"config.json"}
	if generates {
		files = append(files, "generation_config.json")
	}
	path, err := checkpoint.Find(dir, layout)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(path, ".json") {
		index, err := safetensors.ReadIndex(path)
		if err != nil {
			return nil, err
		}
		files = append(files, index.Files()...)
	}
	return append(files, filepath.Base(path)), nil
}
