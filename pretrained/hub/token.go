package hub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/torchgo/torchgo/internal/regular"
	"github.com/torchgo/torchgo/internal/xlog"
)

// Token is a secret. However it is printed, logged or encoded, it shows as a few stars.
type Token struct {
	secret *string // a pointer: even %+v of a struct around it prints an address
}

const redacted = "***"

// NewToken makes a Token. Surrounding space and line ends are dropped; of an empty text it is no token.
func NewToken(s string) Token {
	s = strings.TrimSpace(strings.NewReplacer("\r", "", "\n", "").Replace(s))
	if s == "" {
		return Token{}
	}
	return Token{&s}
}

// IsZero tells whether it is no token.
func (t Token) IsZero() bool { return t.secret == nil }

func (t Token) shown() string {
	if t.IsZero() {
		return ""
	}
	return redacted
}

// String does not tell the token, nor do the other methods that encode it.
func (t Token) String() string { return t.shown() }

// GoString is String.
func (t Token) GoString() string { return t.shown() }

// Format prints String for every verb.
func (t Token) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(t.shown())) }

// LogValue is String.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.shown()) }

// MarshalText is String.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.shown()), nil }

// MarshalJSON is String.
func (t Token) MarshalJSON() ([]byte, error) { return []byte(`"` + t.shown() + `"`), nil }

// check refuses what can't be in a header.
func (t Token) check() error {
	if t.IsZero() {
		return nil
	}
	for _, c := range []byte(*t.secret) {
		if c <= ' ' || c >= 0x7f {
			return &Error{Class: ErrArgument, Detail: "the token has a character that no token has"}
		}
	}
	return nil
}

// FindToken looks for a token as Python does: HF_TOKEN, HUGGING_FACE_HUB_TOKEN, the file HF_TOKEN_PATH or
// "token" below HF_HOME. There may be none. A file that others may read is warned about.
func FindToken() (Token, error) {
	if t := NewToken(cmp.Or(os.Getenv("HF_TOKEN"), os.Getenv("HUGGING_FACE_HUB_TOKEN"))); !t.IsZero() {
		return t, nil
	}
	path := os.Getenv("HF_TOKEN_PATH")
	if path != "" {
		var err error
		if path, err = expand(path); err != nil {
			return Token{}, err
		}
	} else {
		dir, err := home()
		if err != nil {
			return Token{}, nil // no home, no token
		}
		path = filepath.Join(dir, "token")
	}
	data, err := regular.Read(path, 1<<16)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Token{}, nil
	case err != nil:
		return Token{}, err
	}
	t := NewToken(string(data))
	if st, err := os.Stat(path); err == nil && runtime.GOOS != "windows" && st.Mode().Perm()&0o077 != 0 && !t.IsZero() {
		xlog.Logger().LogAttrs(context.Background(), slog.LevelWarn, "others may read the hub's token: chmod 600 "+path)
	}
	return t, nil
}
