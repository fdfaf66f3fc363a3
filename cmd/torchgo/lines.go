package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/torchgo/torchgo/cmd/torchgo/internal/cli"
)

// rows writes the answers, one a line; under --json they are the elements of one array.
type rows struct {
	w       *bufio.Writer
	json    bool
	written int
}

func newRows(app *cli.App) *rows { return &rows{w: bufio.NewWriter(app.Stdout), json: app.JSON} }

func (r *rows) row(data []byte) error {
	if r.json {
		before := ",\n"
		if r.written == 0 {
			before = "["
		}
		if _, err := r.w.WriteString(before); err != nil {
			return err
		}
	}
	r.written++
	_, err := r.w.Write(data)
	if err == nil && !r.json {
		err = r.w.WriteByte('\n')
	}
	return err
}

func (r *rows) flush() error { return r.w.Flush() }

// end finishes the document.
func (r *rows) end() error {
	if r.json {
		after := "]\n"
		if r.written == 0 {
			after = "[]\n"
		}
		if _, err := r.w.WriteString(after); err != nil {
			return err
		}
	}
	return r.flush()
}

// linesAhead bounds how many lines are read before they are asked for.
const linesAhead = 4096

// lines reads lines in the background: Ctrl-C need not wait for the next one, and what has arrived
// can be answered together.
type lines struct {
	ctx   context.Context
	ahead chan string
	err   error // of the reader; read it when ahead is closed
}

func newLines(ctx context.Context, r io.Reader) *lines {
	l := &lines{ctx: ctx, ahead: make(chan string, linesAhead)}
	go func() {
		defer close(l.ahead)
		l.err = l.read(r)
	}()
	return l
}

func (l *lines) read(r io.Reader) error {
	in := bufio.NewReaderSize(r, 1<<16)
	for n := 1; ; n++ {
		line, err := in.ReadString('\n')
		if err != nil && err != io.EOF {
			return err
		}
		if line == "" {
			return nil
		}
		if !utf8.ValidString(line) {
			return fmt.Errorf("line %d: not UTF-8", n)
		}
		select {
		case l.ahead <- strings.TrimSuffix(line, "\n"):
		case <-l.ctx.Done():
			return l.ctx.Err()
		}
	}
}

// take waits for a line and gives all that have arrived. At the end it gives none, and the error
// that ended the reading.
func (l *lines) take() (chunk []string, err error) {
	if err := l.ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case line, ok := <-l.ahead:
		if !ok {
			return nil, l.err
		}
		chunk = append(chunk, line)
	case <-l.ctx.Done():
		return nil, l.ctx.Err()
	}
	for len(chunk) < linesAhead {
		select {
		case line, ok := <-l.ahead:
			if !ok {
				return chunk, nil
			}
			chunk = append(chunk, line)
		default:
			return chunk, nil
		}
	}
	return chunk, nil
}
