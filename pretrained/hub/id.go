package hub

import (
	"fmt"
	"regexp"
	"strings"
)

// Type is what a repository holds.
type Type string

// The types of repositories; the zero Type is a model.
const (
	Model   Type = "model"
	Dataset Type = "dataset"
	Space   Type = "space"
)

// Repo names a repository and a revision of it.
type Repo struct {
	ID       string // "org/name" or "name"
	Type     Type
	Revision string // branch, tag, commit or refs/pr/N; default "main"
}

func (r Repo) withDefaults() Repo {
	if r.Type == "" {
		r.Type = Model
	}
	if r.Revision == "" {
		r.Revision = "main"
	}
	return r
}

func (r Repo) validate() error {
	switch r.Type {
	case Model, Dataset, Space:
	default:
		return &Error{Class: ErrArgument, Detail: "type of repository", Expected: "model, dataset or space", Actual: fmt.Sprintf("%.40q", r.Type)}
	}
	if err := CheckID(r.ID); err != nil {
		return err
	}
	return checkRevision(r.Revision)
}

// String is the id, with @revision unless that is main.
func (r Repo) String() string {
	if r.Revision == "" || r.Revision == "main" {
		return r.ID
	}
	return r.ID + "@" + r.Revision
}

// folder is the repository's name in the cache.
func (r Repo) folder() string {
	return string(r.Type) + "s--" + strings.ReplaceAll(r.ID, "/", "--")
}

// path is the repository's part of the addresses of files.
func (r Repo) path() string {
	if r.Type == Model {
		return "/" + r.ID
	}
	return "/" + string(r.Type) + "s/" + r.ID
}

// CheckID is an error unless id can be a repository's: one name or two, each of 1 to 96 ASCII letters,
// digits, '-', '_' and '.' that neither starts nor ends with '-' or '.'; without "--" and ".."; not ending
// with ".git".
func CheckID(id string) error {
	bad := func(why string) error {
		return &Error{Class: ErrBadID, File: fmt.Sprintf("%.120q", id), Detail: why}
	}
	parts := strings.Split(id, "/")
	if len(parts) > 2 {
		return bad("more than one /")
	}
	for _, p := range parts {
		if p == "" || len(p) > 96 {
			return bad("a name has 1 to 96 characters")
		}
		for _, c := range []byte(p) {
			if !isWord(c) && c != '-' && c != '.' {
				return bad("only letters, digits, '-', '_' and '.' are allowed")
			}
		}
		if !isWord(p[0]) || !isWord(p[len(p)-1]) {
			return bad("a name neither starts nor ends with '-' or '.'")
		}
	}
	switch {
	case strings.Contains(id, "--"), strings.Contains(id, ".."):
		return bad("neither -- nor .. is allowed")
	case strings.HasSuffix(id, ".git"):
		return bad(".git at the end is not allowed")
	}
	return nil
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}

var commitHash = regexp.MustCompile(`^[0-9a-f]{40}$`)

// IsCommit tells whether a revision is a whole commit hash: such a one needs no request.
func IsCommit(revision string) bool { return commitHash.MatchString(revision) }

// checkRevision is an error for what can't be a file below refs/.
func checkRevision(rev string) error {
	if err := CheckName(rev); err != nil || len(rev) > 255 || strings.ContainsAny(rev, "?*[~^: \n\r\t\x7f") || strings.HasSuffix(rev, ".lock") {
		return &Error{Class: ErrRevisionNotFound, File: fmt.Sprintf("%.80q", rev), Detail: "can't be the name of a branch, tag or commit"}
	}
	return nil
}

// CheckName is an error unless a name that a server or an index gives stays below the folder that it is put
// in, by the rules of POSIX and of Windows on every system: no .., nothing absolute, no drive, no UNC path, no
// backslash, no NUL.
func CheckName(name string) error {
	bad := func(why string) error {
		return &Error{Class: ErrPath, Detail: fmt.Sprintf("file name %.100q %s", name, why), Remedy: "the owner of the repository has to rename it"}
	}
	switch {
	case name == "":
		return bad("is empty")
	case len(name) > 4096:
		return bad("is too long")
	case strings.ContainsRune(name, 0):
		return bad("has a NUL byte")
	case strings.HasPrefix(name, "/") || strings.HasPrefix(name, `\`):
		return bad("is absolute")
	case strings.Contains(name, `\`):
		return bad("has a backslash")
	}
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "" || part == "." || part == "..":
			return bad(fmt.Sprintf("has a part %q", part))
		case len(part) > 1 && part[1] == ':':
			return bad("has a drive")
		case len(part) > 255:
			return bad("is too long")
		}
	}
	return nil
}
