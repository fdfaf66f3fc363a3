package setup

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

	thirdparty "github.com/torchgo/torchgo/third_party"
)

// downloads is the folder of whole, verified wheels. They stay until all are unpacked, so that an
// interrupted setup fetches only what it lacks.
func (o *Options) downloads() string { return filepath.Join(o.Cache, "downloads") }

func (o *Options) removeWheels(wheels []thirdparty.Wheel) error {
	for _, w := range wheels {
		if err := os.Remove(filepath.Join(o.downloads(), w.File)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	// Another version's wheels may be in it.
	if err := os.Remove(o.downloads()); err != nil && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// download has pip (or uv) fetch the wheels that are not there yet and returns how many bytes they were.
func (o *Options) download(ctx context.Context, wheels []thirdparty.Wheel, unpacked int64) (int64, error) {
	dir := o.downloads()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	var missing []thirdparty.Wheel
	var bytes, largest int64
	for _, w := range wheels {
		path := filepath.Join(dir, w.File)
		if exists(path) {
			if err := verify(ctx, path, w); err == nil {
				continue
			} else if ctx.Err() != nil {
				return 0, err
			}
			if err := os.Remove(path); err != nil {
				return 0, err
			}
		}
		missing = append(missing, w)
		bytes += w.Size
		largest = max(largest, w.Size)
	}
	// pip writes a wheel to its temporary folder, ours, and copies it.
	if err := o.needSpace(bytes + largest + unpacked); err != nil {
		return 0, err
	}
	if len(missing) == 0 {
		return 0, nil
	}
	pip, err := findPip(ctx)
	if err != nil {
		return 0, err
	}
	o.Say("downloading %d wheels, %s, with %s", len(missing), size(bytes), strings.Join(pip, " "))
	var done int64
	for _, w := range missing {
		if err := o.downloadOne(ctx, pip, w, done, bytes); err != nil {
			return done, err
		}
		done += w.Size
	}
	return done, nil
}

func (o *Options) downloadOne(ctx context.Context, pip []string, w thirdparty.Wheel, before, total int64) error {
	tmp, err := os.MkdirTemp(o.downloads(), tempPrefix)
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
	cmd := command(ctx, pip[0], append(pip[1:len(pip):len(pip)], o.pipArguments(w, dest)...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+work, "PIP_DISABLE_PIP_VERSION_CHECK=1", "PIP_NO_INPUT=1", "PYTHONUNBUFFERED=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out

	stop := make(chan struct{})
	watched := make(chan struct{})
	go func() { // pip's own bar needs a terminal; the file that grows tells as much
		defer close(watched)
		for {
			o.Progress.Bytes("download", before+min(w.Size, bytesBelow(tmp)), total)
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	}()
	err = cmd.Run()
	close(stop)
	<-watched
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%s %s: %w", w.Project, w.Version, explainPip(pip, out.String(), err))
	}
	path := filepath.Join(dest, w.File)
	if !exists(path) {
		return fmt.Errorf("%s %s: %s delivered %s, not the pinned %s", w.Project, w.Version, pip[0], names(dest), w.File)
	}
	if err := verify(ctx, path, w); err != nil {
		return err
	}
	o.Progress.Bytes("download", before+w.Size, total)
	return os.Rename(path, filepath.Join(o.downloads(), w.File))
}

// pipArguments ask for exactly the pinned file, whatever Python runs pip.
func (o *Options) pipArguments(w thirdparty.Wheel, dest string) []string {
	args := []string{
		"download", "--no-deps", "--only-binary=:all:", "--progress-bar", "off", "--dest", dest,
		"--python-version", o.Pins.Python.Version, "--implementation", o.Pins.Python.Implementation, "--abi", o.Pins.Python.ABI,
	}
	tags := strings.Split(strings.TrimSuffix(w.File, ".whl"), "-")
	for platform := range strings.SplitSeq(tags[len(tags)-1], ".") {
		args = append(args, "--platform", platform)
	}
	return append(args, w.Project+"=="+w.Version)
}

var errNoPip = errors.New("no pip: install Python's pip or uv to download libtorch, or name an unpacked one with --libtorch")

// findPip returns the command that runs pip. uv has no download of its own, but runs pip.
func findPip(ctx context.Context) ([]string, error) {
	for _, pip := range [][]string{
		{"pip"}, {"pip3"}, {"python3", "-m", "pip"}, {"python", "-m", "pip"}, {"uv", "tool", "run", "pip"},
	} {
		if _, err := exec.LookPath(pip[0]); err != nil {
			continue
		}
		if command(ctx, pip[0], append(pip[1:len(pip):len(pip)], "--version")...).Run() == nil {
			return pip, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return nil, errNoPip
}

var (
	noNetwork = regexp.MustCompile(`(?i)connection|name resolution|getaddrinfo|network is unreachable|timed? ?out|max retries|ssl|proxy|dns`)
	noWheel   = regexp.MustCompile(`(?i)no matching distribution|could not find a version`)
)

// explainPip makes one line of what pip printed.
func explainPip(pip []string, out string, err error) error {
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
	name := strings.Join(pip, " ")
	switch {
	case strings.Contains(out, "No space left on device"):
		return fmt.Errorf("%s: %w", name, syscall.ENOSPC)
	case noNetwork.MatchString(out):
		return fmt.Errorf("%s can't reach its package index (no network?): %s", name, why)
	case noWheel.MatchString(out):
		return fmt.Errorf("%s's package index does not have the pinned wheel: %s", name, why)
	}
	return fmt.Errorf("%s failed (%w): %s", name, err, why)
}

// verify compares a file with its pin.
func verify(ctx context.Context, path string, w thirdparty.Wheel) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, contextReader{ctx, f}); err != nil {
		return fmt.Errorf("%s: %w", w.File, err)
	}
	if sum := hex.EncodeToString(h.Sum(nil)); sum != w.SHA256 {
		return fmt.Errorf("%s: wrong checksum: sha256 is %s, pinned is %s", w.File, sum, w.SHA256)
	}
	return nil
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
