package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/torchgo/torchgo/cmd/torchgo/internal/cli"
	"github.com/torchgo/torchgo/internal/regular"
	"github.com/torchgo/torchgo/pretrained/checkpoint"
)

// fileFormats are what convert writes for a DST that names a file.
var fileFormats = map[string]checkpoint.Format{
	".safetensors": checkpoint.Safetensors, ".bin": checkpoint.Pickle, ".pt": checkpoint.Pickle, ".pth": checkpoint.Pickle,
}

// convertsFile tells a conversion of weights alone from one of a model: DST is named like a file, and is no folder.
func convertsFile(dst string) bool {
	if st, err := os.Stat(dst); err == nil && st.IsDir() {
		return false
	}
	return fileFormats[filepath.Ext(dst)] != ""
}

// convertedFile is what convert did with a file, as --json prints it.
type convertedFile struct {
	Source      string  `json:"source"`
	Destination string  `json:"destination"`
	Bytes       int64   `json:"bytes"` // of Destination
	Seconds     float64 `json:"seconds"`
}

func convertFile(app *cli.App, cmd *cobra.Command, src, dst string) error {
	var changed string
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if f.Changed {
			changed = f.Name
		}
	})
	if changed != "" {
		return cli.Usagef("--%s: %s is a file, whose weights are written as they are: a folder gets a model", changed, dst)
	}
	if st, err := os.Stat(dst); err == nil {
		if err := regular.Check(dst, st); err != nil {
			return err
		}
	}
	start := time.Now()
	if err := checkpoint.Convert(cmd.Context(), src, dst, fileFormats[filepath.Ext(dst)]); err != nil {
		return err
	}
	st, err := os.Stat(dst)
	if err != nil {
		return err
	}
	if app.JSON {
		return app.PrintJSON(convertedFile{src, dst, st.Size(), time.Since(start).Seconds()})
	}
	_, err = fmt.Fprintf(app.Stdout, "%s: %s\n", dst, plural(st.Size(), "byte"))
	return err
}
