package wheel

import (
	"archive/zip"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
)

// A wheel's bounds; the largest pinned one has 20,000 members and 1.3 GB.
const (
	maxMembers  = 200_000
	maxUnpacked = 8 << 30
)

// Plan picks the members to unpack and refuses a wheel with any member that could leave its folder.
func Plan(r *zip.Reader, wanted func(name string) bool) ([]*zip.File, error) {
	if len(r.File) > maxMembers {
		return nil, fmt.Errorf("%d members, at most %d are allowed", len(r.File), maxMembers)
	}
	var files []*zip.File
	var total uint64
	seen := map[string]bool{}
	for _, f := range r.File {
		name := strings.TrimSuffix(f.Name, "/")
		if !filepath.IsLocal(name) || strings.ContainsAny(name, "\\\x00") || filepath.ToSlash(filepath.Clean(name)) != name {
			return nil, fmt.Errorf("member %q would leave the folder", f.Name)
		}
		if mode := f.Mode(); !mode.IsRegular() && !mode.IsDir() {
			return nil, fmt.Errorf("member %q is neither file nor folder but %s", f.Name, mode.Type())
		}
		if f.Mode().IsDir() || !wanted(f.Name) {
			continue
		}
		if seen[f.Name] {
			return nil, fmt.Errorf("member %q is there twice", f.Name)
		}
		seen[f.Name] = true
		if total += f.UncompressedSize64; f.UncompressedSize64 > maxUnpacked || total > maxUnpacked {
			return nil, fmt.Errorf("unpacks to more than %d bytes", int64(maxUnpacked))
		}
		files = append(files, f)
	}
	return files, nil
}

// Extract writes a member to w; archive/zip compares its size and CRC. progress may be nil.
func Extract(ctx context.Context, f *zip.File, w io.Writer, progress func(n int64)) error {
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	buf := make([]byte, 1<<20)
	for {
		n, err := Reader{ctx, r}.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			if progress != nil {
				progress(int64(n))
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
