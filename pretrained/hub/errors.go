package hub

import (
	"errors"

	"github.com/torchgo/torchgo/internal/fileerr"
)

// Error says what is wrong, with which file of which repository, and what helps.
type Error = fileerr.Error

// The classes of errors, for errors.Is.
var (
	ErrArgument         = errors.New("bad argument")
	ErrBadID            = errors.New("not a repository's id")
	ErrRepoNotFound     = errors.New("no such repository on the hub, or no access to it")
	ErrRevisionNotFound = errors.New("no such revision")
	ErrEntryNotFound    = errors.New("no such file in the repository")
	ErrGated            = errors.New("access to the repository has to be granted")
	ErrUnauthorized     = errors.New("the hub refused the token")
	ErrForbidden        = errors.New("the hub refused access")
	ErrOffline          = errors.New("not in the cache, and the network may not be used")
	ErrUnavailable      = errors.New("the hub can't be reached")
	ErrNotHub           = errors.New("not the answer of a hub")
	ErrNoSpace          = errors.New("not enough disk space")
	ErrExists           = errors.New("there is one already")

	ErrPath         = fileerr.ErrPath
	ErrChecksum     = fileerr.ErrChecksum
	ErrSizeMismatch = fileerr.ErrSizeMismatch
	ErrConflict     = fileerr.ErrConflict
)

// remedies are what helps against each class, where that is always the same.
var remedies = map[error]string{
	ErrRepoNotFound: "check the name; if it is private, give a token that may read it (HF_TOKEN)",
	ErrGated:        "ask for access on the repository's page and give your token (HF_TOKEN)",
	ErrUnauthorized: "make a new token, or unset HF_TOKEN to be anonymous",
	ErrForbidden:    "check what the token may do",
	ErrNotHub:       "check HF_ENDPOINT, proxy and firewall",
	ErrUnavailable:  "try again later: what has arrived is kept",
	ErrChecksum:     "try again; if it stays, the hub or a proxy changes the file",
}

// newError makes an Error about a file of a repository.
func newError(subject string, class error, detail string, cause error) *Error {
	return &Error{File: subject, Class: class, Detail: detail, Err: cause, Remedy: remedies[class]}
}
