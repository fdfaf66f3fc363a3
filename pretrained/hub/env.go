package hub

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

type environment struct {
	endpoint                     string
	offline                      bool
	noImplicitToken              bool
	noLinks                      bool
	downloadTimeout, etagTimeout time.Duration
}

func readEnvironment() (e environment, err error) {
	e.endpoint = cmp.Or(strings.TrimSpace(os.Getenv("HF_ENDPOINT")), DefaultEndpoint)
	e.offline = isTrue(cmp.Or(os.Getenv("HF_HUB_OFFLINE"), os.Getenv("TRANSFORMERS_OFFLINE")))
	e.noImplicitToken = isTrue(os.Getenv("HF_HUB_DISABLE_IMPLICIT_TOKEN"))
	e.noLinks = isTrue(os.Getenv("HF_HUB_DISABLE_SYMLINKS"))
	if e.downloadTimeout, err = seconds("HF_HUB_DOWNLOAD_TIMEOUT"); err != nil {
		return e, err
	}
	e.etagTimeout, err = seconds("HF_HUB_ETAG_TIMEOUT")
	return e, err
}

// OfflineByEnvironment tells whether HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE forbids the network.
func OfflineByEnvironment() bool {
	return isTrue(cmp.Or(os.Getenv("HF_HUB_OFFLINE"), os.Getenv("TRANSFORMERS_OFFLINE")))
}

// NoProgressBars tells whether HF_HUB_DISABLE_PROGRESS_BARS asks programs for none.
func NoProgressBars() bool { return isTrue(os.Getenv("HF_HUB_DISABLE_PROGRESS_BARS")) }

func isTrue(s string) bool {
	switch strings.ToUpper(s) {
	case "1", "ON", "YES", "TRUE":
		return true
	}
	return false
}

func seconds(name string) (time.Duration, error) {
	s := strings.TrimSpace(os.Getenv(name))
	if s == "" {
		return 10 * time.Second, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > 1e6 {
		return 0, &Error{Class: ErrArgument, Detail: name, Expected: "a number of seconds", Actual: strconv.Quote(s)}
	}
	if n == 0 {
		n = 10 // as in Python
	}
	return time.Duration(n) * time.Second, nil
}

// home is HF_HOME, by default huggingface in the user's cache.
func home() (string, error) {
	if dir := os.Getenv("HF_HOME"); dir != "" {
		return expand(dir)
	}
	if dir := os.Getenv("XDG_CACHE_HOME"); dir != "" {
		return expand(filepath.Join(dir, "huggingface"))
	}
	return expand(filepath.Join("~", ".cache", "huggingface"))
}

// CacheDir is where the cache is by the environment.
func CacheDir() (string, error) {
	for _, name := range []string{"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"} {
		if dir := os.Getenv(name); dir != "" {
			return expand(dir)
		}
	}
	dir, err := home()
	return filepath.Join(dir, "hub"), err
}

// expand replaces ~ and $VAR at the place of a path that comes from the environment, as Python does there.
func expand(path string) (string, error) {
	path, err := expandHome(path)
	if err != nil {
		return "", err
	}
	return os.Expand(path, func(name string) string {
		if v, ok := os.LookupEnv(name); ok {
			return v
		}
		return "$" + name
	}), nil
}

func expandHome(path string) (string, error) {
	if path != "~" && !strings.HasPrefix(path, "~/") {
		return path, nil
	}
	dir, err := os.UserHomeDir()
	if err != nil {
		return "", &Error{Class: ErrArgument, Detail: "no folder for the cache", Err: err, Remedy: "set HF_HOME"}
	}
	return filepath.Join(dir, path[1:]), nil
}

// origin is what a token belongs to.
type origin struct{ scheme, host, port string }

func originOf(u *url.URL) origin {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return origin{strings.ToLower(u.Scheme), strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")), port}
}

// mayHaveToken: a token never goes over a network in clear text.
func (o origin) mayHaveToken() bool {
	if o.scheme == "https" {
		return true
	}
	ip := net.ParseIP(o.host)
	return o.host == "localhost" || ip != nil && ip.IsLoopback()
}

// parseEndpoint checks and trims a hub's address.
func parseEndpoint(s string) (origin, string, error) {
	bad := func(why string) (origin, string, error) {
		return origin{}, "", &Error{Class: ErrArgument, Detail: "the hub's address (HF_ENDPOINT)", Expected: "https://host", Err: errors.New(why)}
	}
	u, err := url.Parse(strings.TrimRight(strings.TrimSpace(s), "/"))
	switch {
	case err != nil:
		return bad("can't be read") // the error would show what may be a password
	case u.Scheme != "https" && u.Scheme != "http":
		return bad(fmt.Sprintf("the scheme is %q", u.Scheme))
	case u.Hostname() == "":
		return bad("there is no host")
	case u.User != nil:
		return bad("it has a user or password, which would be sent everywhere; use a token")
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return bad("it has a query")
	}
	return originOf(u), u.String(), nil
}
