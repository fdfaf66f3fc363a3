package atomicfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/torchgo/torchgo/internal/regular"
)

// Folder replaces several files of a directory. It gives out temporary names in it, keeps other savers
// away, and removes in the end what has no other name. The order in which files take their names, so that
// a reader finds the old ones or the new ones together, is the caller's affair: a file may stay readable
// under its temporary name, and another one name it.
type Folder struct {
	dir    string
	prefix string
	files  []*File
	done   bool
	alone  bool // no other process saves here
	unlock func()
}

// maxDocument bounds the JSON files that are searched for temporary names.
const maxDocument = 256 << 20

// tempName is the form of all temporary names.
var tempName = regexp.MustCompile(`^\.save-[0-9a-f]{16}-`)

// OpenFolder waits until nobody else saves in dir, and removes what a save that was killed left there.
func OpenFolder(ctx context.Context, dir string) (*Folder, error) {
	unlock, alone, err := lock(ctx, dir)
	if err != nil {
		return nil, err
	}
	d := &Folder{dir: dir, prefix: fmt.Sprintf(".save-%016x-", rand.Uint64()), alone: alone, unlock: unlock}
	_ = d.removeTemps() // Close tries again
	return d, nil
}

// Dir is the directory.
func (d *Folder) Dir() string { return d.dir }

// Temp is the temporary name of a file.
func (d *Folder) Temp(name string) string { return d.prefix + name }

// Create starts a file that will be name, with the permissions of the one that is. After [File.Finish] it
// stands under Temp(key), whole and on the disk.
func (d *Folder) Create(name, key string) (*File, error) {
	f, err := create(filepath.Join(d.dir, name), filepath.Join(d.dir, d.Temp(key)), 0o666)
	if err == nil {
		d.files = append(d.files, f)
	}
	return f, err
}

// WriteFile is Create, Write and Finish.
func (d *Folder) WriteFile(name, key string, data []byte) error {
	f, err := d.Create(name, key)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Finish()
}

// Link gives a finished file a second temporary name, Temp(to), so that it stays readable under Temp(key)
// when the other one is renamed. Where the file system has no hard links the file is copied.
func (d *Folder) Link(key, to string) error {
	from := filepath.Join(d.dir, d.Temp(key))
	err := link(from, filepath.Join(d.dir, d.Temp(to)))
	if err == nil {
		return nil
	}
	in, openErr := os.Open(from)
	if openErr != nil {
		return openErr
	}
	defer in.Close()
	out, createErr := d.Create(key, to)
	if createErr != nil {
		return errors.Join(err, createErr)
	}
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Finish()
}

// Rename gives the file under Temp(key) its name, in place of an old one. Doing so again is no error.
func (d *Folder) Rename(key, name string) error {
	err := rename(filepath.Join(d.dir, d.Temp(key)), filepath.Join(d.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		if _, there := os.Lstat(filepath.Join(d.dir, name)); there == nil {
			return nil
		}
	}
	return err
}

// Remove removes a file of the folder, if it is there.
func (d *Folder) Remove(name string) error {
	if _, err := os.Lstat(filepath.Join(d.dir, name)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return remove(filepath.Join(d.dir, name))
}

// Sync makes what was renamed and removed so far durable, before what comes next.
func (d *Folder) Sync() error { return SyncDir(d.dir) }

// Done says that all files have their names.
func (d *Folder) Done() { d.done = true }

// Close removes temporary files and lets the next saver in. Unless Done was called, files stay that a JSON
// file of the folder names: they are part of what a reader finds.
func (d *Folder) Close() error {
	for _, f := range d.files {
		if !f.done && !f.gone {
			f.gone = true
			_ = closeFile(f.temp)
		}
	}
	err := d.removeTemps()
	if err != nil {
		err = d.removeTemps()
	}
	d.unlock()
	return err
}

func (d *Folder) removeTemps() error {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return err
	}
	var temps, documents []string
	for _, e := range entries {
		switch {
		case tempName.MatchString(e.Name()) && (d.alone || strings.HasPrefix(e.Name(), d.prefix)):
			temps = append(temps, e.Name())
		case strings.HasSuffix(e.Name(), ".json") && (e.Type().IsRegular() || e.Type() == fs.ModeSymlink):
			documents = append(documents, e.Name())
		}
	}
	if len(temps) == 0 {
		return nil
	}
	var text []byte
	if !d.done {
		for _, name := range documents {
			data, err := regular.Read(filepath.Join(d.dir, name), maxDocument)
			if err != nil {
				return err
			}
			text = append(append(text, data...), '\n')
		}
	}
	var errs []error
	for _, name := range temps {
		if !bytes.Contains(text, []byte(tempName.FindString(name))) {
			errs = append(errs, d.Remove(name))
		}
	}
	return errors.Join(errs...)
}
