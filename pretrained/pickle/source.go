package pickle

import (
	"bytes"
	"fmt"
	"math"

	"github.com/torchgo/torchgo/internal/weights"
)

// source reads a stretch of a file from front to back, in bounded memory: nothing is allocated for bytes that aren't there.
type source struct {
	file     *weights.File
	pos, end int64 // of the next byte, and of the end of the stretch
	buf      []byte
	at       int64 // of buf in the file
}

const windowBytes = 64 << 10

func newSource(f *weights.File, off, end int64) *source { return &source{file: f, pos: off, end: end} }

// next is the next n bytes, valid until the following call.
func (s *source) next(n int64, what string) ([]byte, error) {
	if n > s.end-s.pos {
		return nil, &Error{Class: ErrTruncated, Offset: s.pos, Detail: what, Expected: fmt.Sprintf("%d bytes", n), Actual: fmt.Sprint(s.end - s.pos)}
	}
	if n > math.MaxInt {
		return nil, &Error{Class: ErrLimit, Offset: s.pos, Detail: what, Actual: fmt.Sprint(n)}
	}
	if s.pos < s.at || s.pos+n > s.at+int64(len(s.buf)) {
		want := max(n, min(windowBytes, s.end-s.pos))
		if int64(cap(s.buf)) >= want {
			s.buf = s.buf[:want]
		} else {
			s.buf = make([]byte, want)
		}
		s.at = s.pos
		if err := s.file.ReadFull(s.buf, s.pos); err != nil {
			s.buf = nil
			return nil, err
		}
	}
	p := s.buf[s.pos-s.at:][:n]
	s.pos += n
	return p, nil
}

func (s *source) byte(what string) (byte, error) {
	p, err := s.next(1, what)
	if err != nil {
		return 0, err
	}
	return p[0], nil
}

// maxNameBytes is the longest name of a module or class that is looked at.
const maxNameBytes = 1024

// line is the text up to the next newline, which it drops.
func (s *source) line(what string) (string, error) {
	p, err := s.next(min(maxNameBytes, s.end-s.pos), what)
	if err != nil {
		return "", err
	}
	i := bytes.IndexByte(p, '\n')
	if i < 0 && len(p) < maxNameBytes {
		return "", &Error{Class: ErrTruncated, Offset: s.pos, Detail: what, Expected: "a newline"}
	}
	if i < 0 {
		return "", &Error{Class: ErrForbiddenGlobal, Offset: s.pos - int64(len(p)), Detail: what, Expected: fmt.Sprintf("a name of at most %d bytes", maxNameBytes), Actual: fmt.Sprintf("%.40q…", p)}
	}
	line := string(p[:i])
	s.pos -= int64(len(p) - i - 1)
	return line, nil
}
