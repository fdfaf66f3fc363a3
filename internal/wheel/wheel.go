// Package wheel has pip (or uv) fetch wheels of the package registry, by name, compares them with
// their pins and unpacks them. It names no host: pip knows its index.
package wheel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/torchgo/torchgo/internal/proc"
)

// TempPrefix begins the names of what is not finished, here and in other packages; a killed
// process leaves it.
const TempPrefix = ".tmp-"

// Wheel is one file of the registry.
type Wheel struct {
	File    string `json:"-"`
	Project string `json:"project"`
	Version string `json:"version"`
	Size    int64  `json:"size"` // bytes
	SHA256  string `json:"sha256"`
}

// Python says which interpreter's wheel is meant, whatever Python runs pip.
type Python struct {
	Version        string `json:"version"`
	Implementation string `json:"implementation"`
	ABI            string `json:"abi"`
}

// Client is the command that runs pip.
type Client []string

func (c Client) String() string { return strings.Join(c, " ") }

// ErrNoClient says that there is neither pip nor uv.
var ErrNoClient = errors.New("no pip: install Python's pip, or uv")

// Find looks for pip. uv has no download of its own, but runs pip.
func Find(ctx context.Context) (Client, error) {
	for _, c := range []Client{
		{"pip"}, {"pip3"}, {"python3", "-m", "pip"}, {"python", "-m", "pip"}, {"uv", "tool", "run", "pip"},
	} {
		if _, err := exec.LookPath(c[0]); err != nil {
			continue
		}
		if c.command(ctx, "--version").Run() == nil {
			return c, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return nil, ErrNoClient
}

func (c Client) command(ctx context.Context, args ...string) *exec.Cmd {
	return proc.Command(ctx, c[0], append(c[1:len(c):len(c)], args...)...)
}

// Fetch downloads a wheel to dir and verifies it; on an error dir is as before. progress, if not
// nil, is told how many bytes there are.
func (c Client) Fetch(ctx context.Context, w Wheel, python Python, dir string, progress func(done int64)) error {
	tmp, err := os.MkdirTemp(dir, TempPrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	work, dest := filepath.Join(tmp, "work"), filepath.Join(tmp, "dest")
	for _, dir := range []string{work, dest} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	cmd := c.command(ctx, arguments(w, python, dest)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+work, "PIP_DISABLE_PIP_VERSION_CHECK=1", "PIP_NO_INPUT=1", "PYTHONUNBUFFERED=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	stop := watch(tmp, w.Size, progress)
	err = cmd.Run()
	stop()
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%s %s: %w", w.Project, w.Version, explain(c, out.String(), err))
	}
	path := filepath.Join(dest, w.File)
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("%s %s: %s delivered %s, not the pinned %s", w.Project, w.Version, c[0], names(dest), w.File)
	}
	if err := Verify(ctx, path, w); err != nil {
		return err
	}
	return os.Rename(path, filepath.Join(dir, w.File))
}

// watch reports the growth of the files in dir until the function that it returns is called. (pip's
// own bar needs a terminal.)
func watch(dir string, size int64, progress func(int64)) (stop func()) {
	if progress == nil {
		return func() {}
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			progress(min(size, bytesBelow(dir)))
			select {
			case <-end:
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	}()
	return func() { close(end); <-ended }
}

// bytesBelow sums the files of a folder that another process is writing to.
func bytesBelow(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				sum += info.Size()
			}
		}
		return nil // files come and go under it
	})
	return sum
}

// arguments ask for exactly the pinned file.
func arguments(w Wheel, python Python, dest string) []string {
	args := []string{"download", "--no-deps", "--only-binary=:all:", "--progress-bar", "off", "--dest", dest}
	if python != (Python{}) {
		args = append(args, "--python-version", python.Version, "--implementation", python.Implementation, "--abi", python.ABI)
	}
	tags := strings.Split(strings.TrimSuffix(w.File, ".whl"), "-")
	for platform := range strings.SplitSeq(tags[len(tags)-1], ".") {
		args = append(args, "--platform", platform)
	}
	return append(args, w.Project+"=="+w.Version)
}

var (
	noNetwork = regexp.MustCompile(`(?i)connection|name resolution|getaddrinfo|network is unreachable|timed? ?out|max retries|ssl|proxy|dns`)
	noWheel   = regexp.MustCompile(`(?i)no matching distribution|could not find a version`)
)

// explain makes one line of what pip printed.
func explain(c Client, out string, err error) error {
	why := ""
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(line); strings.HasPrefix(strings.ToLower(line), "error:") {
			why = strings.TrimSpace(line[len("error:"):])
		}
	}
	if why == "" {
		lines := strings.Split(strings.TrimSpace(out), "\n")
		why = strings.TrimSpace(lines[len(lines)-1])
	}
	switch {
	case strings.Contains(out, "No space left on device"):
		return fmt.Errorf("%s: %w", c, syscall.ENOSPC)
	case noNetwork.MatchString(out):
		return fmt.Errorf("%s can't reach its package index (no network?): %s", c, why)
	case noWheel.MatchString(out):
		return fmt.Errorf("%s's package index does not have the pinned wheel: %s", c, why)
	}
	return fmt.Errorf("%s failed (%w): %s", c, err, why)
}

// Verify compares a file with its pin.
func Verify(ctx context.Context, path string, w Wheel) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, Reader{Ctx: ctx, R: f}); err != nil {
		return fmt.Errorf("%s: %w", w.File, err)
	}
	if sum := hex.EncodeToString(h.Sum(nil)); sum != w.SHA256 {
		return fmt.Errorf("%s: wrong checksum: sha256 is %s, pinned is %s", w.File, sum, w.SHA256)
	}
	return nil
}

// Reader ends with its context.
type Reader struct {
	Ctx context.Context
	R   io.Reader
}

func (c Reader) Read(p []byte) (int, error) {
	if err := c.Ctx.Err(); err != nil {
		return 0, err
	}
	return c.R.Read(p)
}

// names lists a folder, for a message.
func names(dir string) string {
	members, err := os.ReadDir(dir)
	if err != nil || len(members) == 0 {
		return "nothing"
	}
	list := make([]string, len(members))
	for i, m := range members {
		list[i] = m.Name()
	}
	return strings.Join(list, ", ")
}
