package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/torchgo/torchgo/cmd/torchgo/internal/cli"
	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/pretrained/checkpoint"
)

func init() { cli.Register(newInspect) }

func newInspect(app *cli.App) *cobra.Command {
	var digest bool
	cmd := &cobra.Command{
		Use:   "inspect FILE|DIR",
		Short: "List the tensors of a checkpoint; needs no libtorch",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			listing, err := checkpoint.List(cmd.Context(), args[0], digest)
			if err != nil {
				var e *fileerr.Error
				if errors.As(err, &e) && strings.HasPrefix(e.Remedy, "Allow") {
					e.Remedy = "" // an option of loading
				}
				return err
			}
			if app.JSON {
				return app.PrintJSON(listing)
			}
			return printListing(app, listing)
		},
	}
	cmd.Flags().BoolVar(&digest, "digest", false, "add the SHA-256 of each tensor's bytes")
	return cmd
}

func printListing(app *cli.App, l *checkpoint.Listing) error {
	w := tabwriter.NewWriter(app.Stdout, 0, 0, 2, ' ', 0)
	var bytes, elements int64
	for _, t := range l.Tensors {
		shape := make([]string, len(t.Shape))
		n := int64(1)
		for i, s := range t.Shape {
			shape[i] = fmt.Sprint(s)
			n *= int64(s)
		}
		bytes, elements = bytes+int64(t.Bytes), elements+n
		fmt.Fprintf(w, "%s\t%s\t(%s)\t%d\t%s\t%s\n", t.Name, t.DType, strings.Join(shape, ", "), t.Bytes, t.File, t.SHA256)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if l.Metadata != nil {
		data, err := json.Marshal(l.Metadata)
		if err != nil {
			return err
		}
		var m any
		d := json.NewDecoder(strings.NewReader(string(data)))
		d.UseNumber()
		if err := d.Decode(&m); err != nil {
			return err
		}
		if data, err = json.Marshal(abridged(m)); err != nil {
			return err
		}
		fmt.Fprintf(app.Stdout, "metadata: %s\n", data)
	}
	_, err := fmt.Fprintf(app.Stdout, "%d tensors, %d elements, %d bytes\n", len(l.Tensors), elements, bytes)
	return err
}

// abridged is v without most of what long lists hold, such as vocabularies.
func abridged(v any) any {
	const most = 8
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			v[key] = abridged(value)
		}
	case []any:
		if len(v) > most {
			return append(v[:most:most], fmt.Sprintf("… %d more", len(v)-most))
		}
	}
	return v
}
