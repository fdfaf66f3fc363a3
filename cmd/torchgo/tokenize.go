package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/torchgo/torchgo/cmd/torchgo/internal/cli"
	"github.com/torchgo/torchgo/pretrained/tokenizer"
)

func init() { cli.Register(newTokenize) }

func newTokenize(app *cli.App) *cobra.Command {
	var decode, jsonl, skipSpecial bool
	addSpecial := true
	cmd := &cobra.Command{
		Use:   "tokenize MODEL",
		Short: "Lines of text in, token ids out, or back with --decode; needs no libtorch",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			tok, err := tokenizer.FromPretrained(args[0])
			if err != nil {
				return fmt.Errorf("tokenize: %w", err)
			}
			o := tokenizer.EncodeOptions{NoSpecialTokens: !addSpecial}
			convert := func(dst []byte, line []byte) ([]byte, error) {
				switch {
				case jsonl && decode:
					return tok.DecodeJSON(dst, line, skipSpecial)
				case jsonl:
					return tok.EncodeJSON(dst, line, o)
				case decode:
					ids, err := parseIDs(string(line))
					if err != nil {
						return dst, err
					}
					return append(dst, tok.Decode(ids, skipSpecial)...), nil
				}
				e, err := tok.Encode(string(line), o)
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
			if err := eachLine(cmd.Context(), app, convert); err != nil {
				return fmt.Errorf("tokenize: %w", err)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&decode, "decode", false, "ids in, text out")
	f.BoolVar(&jsonl, "jsonl", false, "a line is JSON: a string or [text, pair] (with --decode an array of ids)")
	f.BoolVar(&addSpecial, "add-special-tokens", true, "add the model's special tokens")
	f.BoolVar(&skipSpecial, "skip-special-tokens", false, "leave special tokens out of decoded text")
	return cmd
}

// parseIDs reads ids separated by spaces or commas.
func parseIDs(line string) ([]int, error) {
	var ids []int
	for word := range strings.FieldsFuncSeq(line, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' }) {
		id, err := strconv.Atoi(word)
		if err != nil {
			return nil, fmt.Errorf("expected ids, got %q", word)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// eachLine converts stdin to stdout line by line; an error names the line.
func eachLine(ctx context.Context, app *cli.App, convert func(dst, line []byte) ([]byte, error)) error {
	w := bufio.NewWriter(app.Stdout)
	var out []byte
	err := readLines(ctx, app.Stdin, func(n int, line []byte) error {
		var err error
		if out, err = convert(out[:0], line); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		_, err = w.Write(append(out, '\n'))
		return err
	})
	return errors.Join(err, w.Flush())
}

// readLines calls fn with each line, counted from 1, without its end.
func readLines(ctx context.Context, r io.Reader, fn func(n int, line []byte) error) error {
	in := bufio.NewReaderSize(r, 1<<16)
	for n := 1; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		line, err := in.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return err
		}
		if len(line) == 0 {
			return nil
		}
		end := err == io.EOF
		line = []byte(strings.TrimSuffix(string(line), "\n"))
		if err := fn(n, line); err != nil {
			return err
		}
		if end {
			return nil
		}
	}
}
