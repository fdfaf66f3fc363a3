package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// A worker is a child process that stays alive and times blocks of work on command. The two workers
// of a row, ours and Python's, speak the same lines: the worker begins with a hello, then answers
// each command with a reply, both JSON.

// command asks for N repetitions of a piece of work, or for the work on N inputs.
type command struct {
	Work string `json:"work"`
	N    int    `json:"n"`
	At   int    `json:"at"`   // of the first input
	Warm int    `json:"warm"` // repetitions before, so that caches hold again what others displaced
}

// reply is how long they took.
type reply struct {
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu"`   // processor seconds of the whole process
	Check   float64 `json:"check"` // a number that both sides have to agree on
	Error   string  `json:"error,omitempty"`
}

// hello says who the worker is.
type hello struct {
	Versions map[string]string `json:"versions"`
	Threads  int               `json:"threads"`
	Error    string            `json:"error,omitempty"`
}

// worker is the driver's end.
type worker struct {
	hello hello
	name  string
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Scanner
}

func startWorker(ctx context.Context, name string, argv []string) (*worker, error) {
	w := &worker{name: name, cmd: exec.CommandContext(ctx, argv[0], argv[1:]...)}
	w.cmd.Stderr = os.Stderr
	var err error
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.out = bufio.NewScanner(out)
	if err := w.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	if err := w.read(&w.hello); err != nil {
		w.stop()
		return nil, err
	}
	if w.hello.Error != "" {
		w.stop()
		return nil, fmt.Errorf("%s: %s", name, w.hello.Error)
	}
	return w, nil
}

func (w *worker) read(v any) error {
	if !w.out.Scan() {
		err := w.out.Err()
		if err == nil {
			err = errors.New("it ended early")
		}
		return fmt.Errorf("%s: %w", w.name, err)
	}
	if err := json.Unmarshal(w.out.Bytes(), v); err != nil {
		return fmt.Errorf("%s: %q: %w", w.name, w.out.Text(), err)
	}
	return nil
}

// run has the worker do a piece of work.
func (w *worker) run(c command) (r reply, err error) {
	if err = json.NewEncoder(w.in).Encode(c); err != nil {
		return r, fmt.Errorf("%s: %w", w.name, err)
	}
	if err = w.read(&r); err == nil && r.Error != "" {
		err = fmt.Errorf("%s: %s: %s", w.name, c.Work, r.Error)
	}
	return r, err
}

func (w *worker) stop() {
	_ = w.in.Close() // the worker ends at the end of its input
	_ = w.cmd.Wait()
}
