package hub

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/torchgo/torchgo/internal/strictjson"
)

// A partial download is two files with a name that no other process has, <etag>.<nonce>.incomplete with the
// bytes and <etag>.<nonce>.state.incomplete, written first, which says what they are and which of them have
// come. Python's `hf cache prune` takes both for what they are.
//
// A partial of a process that was interrupted is taken over only where the lock is seen to work, so that
// its owner is known to be gone. Elsewhere everyone begins anew: twice the transfer, never a mixture.
const (
	partSuffix  = ".incomplete"
	stateSuffix = ".state.incomplete"
	staleAfter  = 24 * time.Hour // then a leftover that can't be taken over is removed
	saveEvery   = 2 << 20        // bytes
	maxSpans    = 1 << 16        // of a file: a hub may say of any that it is huge
)

// span is a part of a file that one transfer fetches: [start, at) has come, [at, end) is to come.
type span struct{ start, at, end int64 }

// partial is a download on its way.
type partial struct {
	root *os.Root
	base string // path below root without suffix
	file *os.File

	etag string
	size int64 // -1: unknown

	mu        sync.Mutex
	validator string // the ETag of who serves the bytes, for If-Range
	spans     []*span
	dirty     int64 // bytes since the state was saved
}

// state is the sidecar.
type state struct {
	ETag      string     `json:"etag"`
	Size      int64      `json:"size"`
	Host      string     `json:"host"`
	Validator string     `json:"validator,omitempty"`
	Done      [][2]int64 `json:"done"`
}

func hostName() string {
	name, _ := os.Hostname()
	return name
}

// openPartial takes over what an earlier download of the same content left, or begins a new one.
func openPartial(root *os.Root, dir, etag string, size int64, alone bool) (*partial, error) {
	if err := root.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	var best *partial
	if alone && size >= 0 && isHash(etag) {
		best = takeOver(root, dir, etag, size)
	}
	sweep(root, dir, etag, best, alone)
	if best != nil {
		return best, nil
	}
	p := &partial{root: root, base: path.Join(dir, etag+"."+nonce()), etag: etag, size: size}
	p.reset()
	if err := p.save(); err != nil {
		return nil, err
	}
	var err error
	if p.file, err = root.OpenFile(p.base+partSuffix, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666); err != nil {
		p.remove()
		return nil, err
	}
	return p, nil
}

// leftovers lists the bases of partials of an etag.
func leftovers(root *os.Root, dir, etag string) []string {
	d, err := root.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	entries, _ := d.Readdirnames(-1)
	var bases []string
	for _, name := range entries {
		if strings.HasPrefix(name, etag+".") && strings.HasSuffix(name, stateSuffix) {
			bases = append(bases, path.Join(dir, strings.TrimSuffix(name, stateSuffix)))
		}
	}
	slices.Sort(bases)
	return bases
}

// takeOver opens the partial of this host that is furthest.
func takeOver(root *os.Root, dir, etag string, size int64) (best *partial) {
	most := int64(-1)
	for _, base := range leftovers(root, dir, etag) {
		st, err := parseState(readSmall(root, base+stateSuffix, 1<<20))
		if err != nil || st.ETag != etag || st.Size != size || st.Host != hostName() {
			continue
		}
		info, err := root.Lstat(base + partSuffix)
		if err != nil || !info.Mode().IsRegular() || info.Size() > size {
			continue
		}
		var have int64
		fits := true
		for _, d := range st.Done {
			have += d[1] - d[0]
			fits = fits && d[1] <= info.Size()
		}
		if !fits || have <= most {
			continue
		}
		f, err := root.OpenFile(base+partSuffix, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if best != nil {
			_ = best.file.Close()
		}
		most = have
		best = &partial{root: root, base: base, file: f, etag: etag, size: size, validator: st.Validator}
		for _, d := range st.Done {
			best.spans = append(best.spans, &span{d[0], d[1], d[1]})
		}
	}
	return best
}

// sweep removes leftovers that nobody will go on with.
func sweep(root *os.Root, dir, etag string, keep *partial, alone bool) {
	for _, base := range leftovers(root, dir, etag) {
		if keep != nil && keep.base == base {
			continue
		}
		info, err := root.Lstat(base + partSuffix)
		if err != nil {
			if info, err = root.Lstat(base + stateSuffix); err != nil {
				continue
			}
		}
		st, err := parseState(readSmall(root, base+stateSuffix, 1<<20))
		mine := alone && err == nil && st.Host == hostName()
		if mine || time.Since(info.ModTime()) > staleAfter {
			_ = root.Remove(base + partSuffix)
			_ = root.Remove(base + stateSuffix)
		}
	}
}

// parseState reads a sidecar. Parts must be in order and apart.
func parseState(data []byte) (s state, err error) {
	d := strictjson.NewDecoder(data, strictjson.Options{MaxDepth: 4})
	err = d.Object(func(name string) (err error) {
		switch name {
		case "etag":
			s.ETag, err = d.Text()
		case "size":
			s.Size, err = size(d)
		case "host":
			s.Host, err = d.Text()
		case "validator":
			s.Validator, err = d.Text()
		case "done":
			err = d.Array(func(int) error {
				var part [2]int64
				n := 0
				err := d.Array(func(i int) (err error) {
					if n = i + 1; i > 1 {
						return errors.New("a part has two ends")
					}
					part[i], err = size(d)
					return err
				})
				if err == nil && n != 2 {
					err = errors.New("a part has two ends")
				}
				s.Done = append(s.Done, part)
				return err
			})
		default:
			err = d.Skip()
		}
		return err
	})
	if err == nil {
		err = d.End()
	}
	at := int64(0)
	for _, part := range s.Done {
		if err == nil && (part[0] < at || part[1] < part[0] || part[1] > s.Size) {
			err = errors.New("parts that can't be")
		}
		at = part[1]
	}
	return s, err
}

// reset forgets what has come.
func (p *partial) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spans, p.validator = nil, ""
}

// have is how many bytes have come.
func (p *partial) have() (n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.spans {
		n += s.at - s.start
	}
	return n
}

// missing divides what is to come into spans of at most step bytes, of huge files into larger ones, and makes them the partial's.
func (p *partial) missing(step int64) (todo []*span) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.size < 0 {
		p.spans = []*span{{0, 0, -1}}
		return p.spans
	}
	var done []*span // what has come, joined
	for _, s := range p.spans {
		if s.at == s.start {
			continue
		}
		if n := len(done); n > 0 && done[n-1].at == s.start {
			done[n-1].at, done[n-1].end = s.at, s.at
			continue
		}
		done = append(done, &span{s.start, s.at, s.at})
	}
	step = max(step, p.size/maxSpans)
	at := int64(0)
	fill := func(end int64) {
		for at < end {
			s := &span{at, at, at + min(end-at, step)}
			todo = append(todo, s)
			at = s.end
		}
	}
	for _, s := range done {
		fill(s.start)
		at = s.end
	}
	fill(p.size)
	p.spans = append(done, todo...)
	slices.SortFunc(p.spans, func(a, b *span) int { return int(min(1, max(-1, a.start-b.start))) })
	return todo
}

// write puts bytes of a span in their place.
func (p *partial) write(s *span, data []byte) error {
	if _, err := p.file.WriteAt(data, s.at); err != nil {
		return err
	}
	p.mu.Lock()
	s.at += int64(len(data))
	p.dirty += int64(len(data))
	save := p.dirty >= saveEvery
	if save {
		p.dirty = 0
	}
	p.mu.Unlock()
	if save {
		return p.save()
	}
	return nil
}

// back makes a span begin again and tells how many bytes that loses.
func (p *partial) back(s *span) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := s.at - s.start
	s.at = s.start
	return n
}

// save writes the sidecar.
func (p *partial) save() error {
	p.mu.Lock()
	s := state{ETag: p.etag, Size: p.size, Host: hostName(), Validator: p.validator, Done: [][2]int64{}}
	for _, x := range p.spans {
		if x.at > x.start {
			s.Done = append(s.Done, [2]int64{x.start, x.at})
		}
	}
	p.mu.Unlock()
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return put(p.root, p.base+stateSuffix, data)
}

// keep leaves it for the next download to go on with.
func (p *partial) keep() {
	_ = p.save()
	_ = p.file.Close()
	if p.size < 0 {
		p.remove() // without a size nobody can go on
	}
}

// remove throws it away.
func (p *partial) remove() {
	if p.file != nil {
		_ = p.file.Close()
	}
	_ = p.root.Remove(p.base + partSuffix)
	_ = p.root.Remove(p.base + stateSuffix)
}

// verify reads the whole content and compares it with its hash.
func (p *partial) verify(ctx context.Context, subject string) error {
	st, err := p.file.Stat()
	if err != nil {
		return err
	}
	if p.size >= 0 && st.Size() != p.size {
		return newError(subject, ErrSizeMismatch, fmt.Sprintf("expected %d bytes, got %d", p.size, st.Size()), nil)
	}
	if !isHash(p.etag) {
		return nil
	}
	got, err := contentHash(contextReader{ctx, io.NewSectionReader(p.file, 0, st.Size())}, st.Size(), p.etag)
	if err != nil {
		return err
	}
	if got != p.etag {
		e := newError(subject, ErrChecksum, "", nil)
		e.Expected, e.Actual = p.etag, got
		return e
	}
	return nil
}

// contentHash is the hash of a file of the kind that want is: SHA-256, or git's SHA-1 of a blob. Some mirrors
// give the plain SHA-1 of the content, which proves as much.
func contentHash(r io.Reader, size int64, want string) (string, error) {
	if len(want) == 64 {
		h := sha256.New()
		_, err := io.Copy(h, r)
		return hex.EncodeToString(h.Sum(nil)), err
	}
	blob, plain := sha1.New(), sha1.New()
	fmt.Fprintf(blob, "blob %d\x00", size)
	_, err := io.Copy(io.MultiWriter([]io.Writer{blob, plain}...), r)
	if s := hexSum(plain); s == want {
		return s, err
	}
	return hexSum(blob), err
}

func hexSum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

// commit gives the content its name. Somebody else may have done that in the meantime: then theirs stays.
func (p *partial) commit(target string, replace bool) (isNew bool, err error) {
	if err := p.file.Sync(); err != nil {
		return false, err
	}
	if err := p.file.Close(); err != nil {
		return false, err
	}
	if !replace {
		if st, err := p.root.Lstat(target); err == nil && (p.size < 0 || st.Mode()&fs.ModeSymlink != 0 || st.Size() == p.size) {
			p.remove()
			return false, nil
		}
	}
	if err := p.root.Rename(p.base+partSuffix, target); err != nil {
		if st, there := p.root.Lstat(target); errors.Is(err, fs.ErrNotExist) && there == nil && st.Size() == p.size {
			return false, nil // whoever took our part for abandoned has finished it
		}
		return false, err
	}
	_ = p.root.Remove(p.base + stateSuffix)
	return true, nil
}
