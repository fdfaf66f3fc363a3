package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/torchgo/torchgo/cmd/torchgo/internal/cli"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/tokenizer"
)

func init() { cli.Register(newTokenize) }

func newTokenize(app *cli.App) *cobra.Command {
	var decode, jsonl, skipSpecial bool
	var subfolder string
	addSpecial := true
	var flags *hubFlags
	cmd := &cobra.Command{
		Use:   "tokenize MODEL",
		Short: "Lines of text in, token ids out, or back with --decode; needs no libtorch",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := args[0]
			if st, err := os.Stat(dir); err == nil && st.Mode().IsRegular() {
				dir = filepath.Dir(dir) // a checkpoint file, with its tokenizer beside it
			}
			var o pretrained.Options
			flags.apply(app, &o)
			dir, _, err := pretrained.DownloadFiles(cmd.Context(), dir, o, pretrained.TextFiles...)
			if err != nil {
				return err
			}
			tok, err := tokenizer.FromPretrained(filepath.Join(dir, filepath.FromSlash(subfolder)))
			if err != nil {
				return err
			}
			eo := tokenizer.EncodeOptions{NoSpecialTokens: !addSpecial}
			convert := func(dst []byte, line string) ([]byte, error) {
				if app.JSON && !jsonl { // the rows of one document look as with --jsonl
					var v any = line
					if decode {
						ids, err := parseIDs(line)
						if err != nil {
							return dst, err
						}
						v = ids
					}
					data, err := json.Marshal(v)
					if err != nil {
						return dst, err
					}
					line = string(data)
				}
				switch jsonl := jsonl || app.JSON; {
				case jsonl && decode:
					return tok.DecodeJSON(dst, []byte(line), skipSpecial)
				case jsonl:
					return tok.EncodeJSON(dst, []byte(line), eo)
				case decode:
					ids, err := parseIDs(line)
					if err != nil {
						return dst, err
					}
					return append(dst, tok.Decode(ids, skipSpecial)...), nil
				}
				e, err := tok.Encode(line, eo)
				if err != nil {
					return dst, err
				}
				for i, id := range e.IDs {
					if i > 0 {
						dst = append(dst, ' ')
					}
					dst = strconv.AppendInt(dst, int64(id), 10)
				}
				return dst, nil
			}
			return eachLine(cmd.Context(), app, convert)
		},
	}
	f := cmd.Flags()
	flags = addHubFlags(f)
	f.StringVar(&subfolder, "subfolder", "", "a folder below MODEL")
	f.BoolVar(&decode, "decode", false, "ids in, text out")
	f.BoolVar(&jsonl, "jsonl", false, "a line is JSON: a string or [text, pair] (with --decode an array of ids)")
	f.BoolVar(&addSpecial, "add-special-tokens", true, "add the model's special tokens")
	f.BoolVar(&skipSpecial, "skip-special-tokens", false, "leave special tokens out of decoded text")
	return cmd
}

// parseIDs reads ids separated by spaces or commas.
func parseIDs(line string) ([]int, error) {
	ids := []int{}
	for word := range strings.FieldsFuncSeq(line, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' }) {
		id, err := strconv.Atoi(word)
		if err != nil {
			return nil, fmt.Errorf("expected ids, got %q", word)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// eachLine converts stdin to stdout line by line, and answers what has arrived before it waits for
// more; an error names the line.
func eachLine(ctx context.Context, app *cli.App, convert func(dst []byte, line string) ([]byte, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, out := newLines(ctx, app.Stdin), newRows(app)
	var row []byte
	for n := 1; ; {
		chunk, err := in.take()
		if err == nil && len(chunk) == 0 {
			return out.end()
		}
		for _, line := range chunk {
			if row, err = convert(row[:0], line); err != nil {
				err = fmt.Errorf("line %d: %w", n, err)
				break
			}
			if err = out.row(row); err != nil {
				break
			}
			n++
		}
		if e := out.flush(); err == nil {
			err = e
		}
		if err != nil {
			return err
		}
	}
}
