package hub

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/hubtest"
)

func TestTokenHidesItself(t *testing.T) {
	tok := NewToken("  " + theToken + "\r\n")
	type inside struct {
		Token Token
		low   Token
		Ptr   *Token
	}
	v := inside{tok, tok, &tok}
	var b bytes.Buffer
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T %v", "%p", "%10.3s"} {
		fmt.Fprintf(&b, format, tok, tok)
		fmt.Fprintf(&b, format, &tok)
		fmt.Fprintf(&b, format, v)
		fmt.Fprintf(&b, format, &v)
		fmt.Fprintf(&b, format, []Token{tok})
		fmt.Fprintf(&b, format, map[string]any{"a": tok, "b": v})
		fmt.Fprintf(&b, format, Options{Token: tok})
	}
	for _, x := range []any{tok, v, Options{Token: tok, Progress: nil}.Token} {
		data, err := json.Marshal(x)
		require.NoError(t, err)
		b.Write(data)
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&b, nil), slog.NewJSONHandler(&b, nil)} {
		slog.New(h).Info("x", "token", tok, "in", v, slog.Group("g", "t", &tok))
	}
	func() {
		defer func() { fmt.Fprint(&b, recover()) }()
		panic(tok)
	}()
	require.NotContains(t, b.String(), theToken)
	require.NotContains(t, b.String(), fmt.Sprintf("%x", theToken))
	require.NotContains(t, b.String(), fmt.Sprintf("%X", theToken))
	require.True(t, NewToken(" \n").IsZero())
	require.Empty(t, Token{}.String())

	for _, bad := range []string{"a b", "a\x01b", "ä"} {
		_, err := New(Options{Token: NewToken(bad), CacheDir: t.TempDir()})
		require.ErrorIs(t, err, ErrArgument)
		require.NotContains(t, err.Error(), bad)
	}
}

func TestFindToken(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HF_HOME", dir)
	find := func() string {
		tok, err := FindToken()
		require.NoError(t, err)
		if tok.IsZero() {
			return ""
		}
		return *tok.secret
	}
	require.Empty(t, find())
	before := len(logged.String())
	warned := func() bool { return strings.Contains(logged.String()[before:], "chmod 600") }
	require.NoError(t, os.WriteFile(filepath.Join(dir, "token"), []byte("hf_file\n"), 0o600))
	require.Equal(t, "hf_file", find())
	require.False(t, warned())
	require.NoError(t, os.Chmod(filepath.Join(dir, "token"), 0o644))
	require.Equal(t, "hf_file", find())
	require.True(t, warned())
	other := filepath.Join(dir, "other")
	require.NoError(t, os.WriteFile(other, []byte("hf_other"), 0o600))
	t.Setenv("HF_TOKEN_PATH", other)
	require.Equal(t, "hf_other", find())
	t.Setenv("HUGGING_FACE_HUB_TOKEN", "hf_old")
	require.Equal(t, "hf_old", find())
	t.Setenv("HF_TOKEN", "hf_new")
	require.Equal(t, "hf_new", find())

	s := hubtest.New(t)
	s.Token = "hf_new"
	s.Commit("org/name", fileMap())
	resolve(t, client(t, s, Options{}), Repo{ID: "org/name"})
	require.Equal(t, "hf_new", s.Requests()[0].Token)
	resolve(t, client(t, s, Options{NoToken: true}), Repo{ID: "org/name"})
	require.Empty(t, s.Requests()[1].Token)
	t.Setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
	resolve(t, client(t, s, Options{}), Repo{ID: "org/name"})
	require.Empty(t, s.Requests()[2].Token)
	resolve(t, client(t, s, Options{Token: NewToken("hf_new")}), Repo{ID: "org/name"})
	require.Equal(t, "hf_new", s.Requests()[3].Token)
}

func TestEndpoints(t *testing.T) {
	for in, want := range map[string]string{
		" https://huggingface.co/ \n": "https://huggingface.co", "http://127.0.0.1:80/": "http://127.0.0.1:80", "https://host/mirror//": "https://host/mirror",
	} {
		_, got, err := parseEndpoint(in)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, in := range []string{"huggingface.co", "ftp://x", "https://", "https://user:pw@host", "https://host?x=1", "https://host#x", "https://ho st", "://", "https://\x00"} {
		_, _, err := parseEndpoint(in)
		require.ErrorIs(t, err, ErrArgument, "%q", in)
		require.NotContains(t, err.Error(), "pw")
		t.Setenv("HF_ENDPOINT", strings.ReplaceAll(in, "\x00", ""))
		_, err = New(Options{CacheDir: t.TempDir()})
		require.ErrorIs(t, err, ErrArgument, "%q", in)
	}
	for in, want := range map[string]bool{"https://host": true, "http://host": false, "http://127.0.0.1:8000": true, "http://localhost": true, "http://[::1]:8": true, "http://10.0.0.1": false} {
		u, err := url.Parse(in)
		require.NoError(t, err)
		require.Equal(t, want, originOf(u).mayHaveToken(), in)
	}
	a, _ := url.Parse("https://Host:443/x")
	b, _ := url.Parse("https://host/y")
	require.Equal(t, originOf(a), originOf(b))
}

// A token is not sent in clear text to another machine; to this one it is.
func TestTokenNeedsHTTPS(t *testing.T) {
	for endpoint, want := range map[string]string{"http://hub.test": "", "http://localhost:1": "Bearer " + theToken, "https://hub.test": "Bearer " + theToken} {
		asked := 0
		c := client(t, nil, Options{Endpoint: endpoint, Token: NewToken(theToken), transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			asked++
			require.Equal(t, want, r.Header.Get("Authorization"), endpoint)
			return &http.Response{StatusCode: http.StatusOK, Request: r, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{"sha": "` + strings.Repeat("c", 40) + `"}`))}, nil
		})})
		resolve(t, c, Repo{ID: "org/name"})
		require.Equal(t, 1, asked)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (r roundTripper) RoundTrip(q *http.Request) (*http.Response, error) { return r(q) }

// world is several hosts behind one transport: what each name says, over http or https.
type world struct {
	t     *testing.T
	hosts map[string]*httptest.Server // by scheme://host
	pool  *x509.CertPool

	mu   sync.Mutex
	seen map[string][]string // what each got as Authorization
}

func newWorld(t *testing.T) *world {
	return &world{t: t, hosts: map[string]*httptest.Server{}, pool: x509.NewCertPool(), seen: map[string][]string{}}
}

func (w *world) host(name string, answer http.HandlerFunc) {
	handler := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.seen[name] = append(w.seen[name], r.Header.Get("Authorization"))
		w.mu.Unlock()
		answer(rw, r)
	})
	var s *httptest.Server
	if strings.HasPrefix(name, "https:") {
		s = httptest.NewTLSServer(handler)
	} else {
		s = httptest.NewServer(handler)
	}
	w.t.Cleanup(s.Close)
	w.hosts[name] = s
}

// transport connects each name with its server.
func (w *world) transport() http.RoundTripper {
	return &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // the names are made up
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			host, port, _ := net.SplitHostPort(addr)
			for name, s := range w.hosts {
				u, _ := url.Parse(name)
				o := originOf(u)
				if o.host == host && o.port == port {
					return (&net.Dialer{}).DialContext(ctx, network, s.Listener.Addr().String())
				}
			}
			return nil, fmt.Errorf("no such host %s", addr)
		},
	}
}

// TestTokenStaysAtItsOrigin: to the hub's scheme, host and port alone, whatever redirects and links say.
func TestTokenStaysAtItsOrigin(t *testing.T) {
	commit := strings.Repeat("c", 40)
	body := []byte("{}")
	etag := hubtest.Etag("config.json", body)
	content := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Repo-Commit", commit)
		w.Header().Set("ETag", `"`+etag+`"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	}
	for name, c := range map[string]struct {
		to      string // where the hub sends requests for the file
		status  int
		linked  bool // with the hub's own headers
		token   bool // the target may have the token
		refused bool
	}{
		"same origin 307":    {"/moved/name/resolve/" + commit + "/config.json", 307, false, true, false},
		"same origin 302":    {"https://hub.test/moved/name/resolve/" + commit + "/config.json", 302, false, true, false},
		"same, default port": {"https://hub.test:443/moved/name/resolve/" + commit + "/config.json", 308, false, true, false},
		"other host":         {"https://cdn.test/x?X-Signature=SIGNED-SECRET", 302, true, false, false},
		"subdomain":          {"https://sub.hub.test/x?X-Signature=SIGNED-SECRET", 302, true, false, false},
		"parent":             {"https://test/x", 302, true, false, false},
		"other port":         {"https://hub.test:8443/x", 307, true, false, false},
		"https to http":      {"http://hub.test/x", 302, true, false, true},
		"http elsewhere":     {"http://cdn.test/x?X-Signature=SIGNED-SECRET", 302, true, false, true},
		"mirror, not linked": {"https://cdn.test/moved/name/resolve/" + commit + "/config.json", 302, false, false, false},
		"a user":             {"https://hub.test@cdn.test/x", 302, false, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.host("https://hub.test", func(rw http.ResponseWriter, r *http.Request) {
				if !strings.HasPrefix(r.URL.Path, "/org/name/resolve") {
					content(rw, r)
					return
				}
				if c.linked {
					rw.Header().Set("X-Repo-Commit", commit)
					rw.Header().Set("X-Linked-Etag", `"`+etag+`"`)
					rw.Header().Set("X-Linked-Size", fmt.Sprint(len(body)))
				}
				rw.Header().Set("Location", c.to)
				rw.WriteHeader(c.status)
			})
			for _, other := range []string{"https://cdn.test", "https://sub.hub.test", "https://test", "https://hub.test:8443", "http://hub.test", "http://cdn.test"} {
				w.host(other, content)
			}
			cl := client(t, nil, Options{Endpoint: "https://hub.test", Token: NewToken(theToken), transport: w.transport()})
			_, err := resolve(t, cl, Repo{ID: "org/name", Revision: commit}).File(t.Context(), "config.json")
			if c.refused {
				require.ErrorIs(t, err, ErrNotHub)
				require.NotContains(t, err.Error(), "SIGNED")
			} else {
				require.NoError(t, err)
			}
			require.NotEmpty(t, w.seen["https://hub.test"])
			for host, tokens := range w.seen {
				for _, tok := range tokens {
					if host == "https://hub.test" {
						require.Equal(t, "Bearer "+theToken, tok)
					} else {
						require.Empty(t, tok, host)
					}
				}
			}
			if strings.HasPrefix(name, "http") {
				require.Empty(t, w.seen["http://hub.test"])
				require.Empty(t, w.seen["http://cdn.test"])
			}
			requireNoSecret(t, cl.CacheDir())
		})
	}
}

// TestPagesOfOtherOrigins: a list of files that goes on elsewhere goes on without the token.
func TestPagesOfOtherOrigins(t *testing.T) {
	commit := strings.Repeat("c", 40)
	entry := func(name string) string {
		return fmt.Sprintf(`[{"type": "file", "path": %q, "oid": %q, "size": 2}]`, name, strings.Repeat("a", 40))
	}
	for next, fine := range map[string]bool{"https://hub.test/page2": true, "https://cdn.test/page2": true, "http://hub.test/page2": false, "/page2": true} {
		w := newWorld(t)
		page := func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Type", "application/json")
			if r.URL.Path == "/page2" {
				_, _ = rw.Write([]byte(entry("two")))
				return
			}
			rw.Header().Set("Link", `<https://hub.test/first>; rel="first", <`+next+`>; rel="next"`)
			_, _ = rw.Write([]byte(entry("one")))
		}
		for _, host := range []string{"https://hub.test", "https://cdn.test", "http://hub.test"} {
			w.host(host, page)
		}
		cl := client(t, nil, Options{Endpoint: "https://hub.test", Token: NewToken(theToken), transport: w.transport()})
		list, err := resolve(t, cl, Repo{ID: "org/name", Revision: commit}).List(t.Context())
		if !fine {
			require.ErrorIs(t, err, ErrNotHub)
		} else {
			require.NoError(t, err)
			require.Len(t, list, 2)
		}
		require.Empty(t, w.seen["http://hub.test"])
		for _, tok := range w.seen["https://cdn.test"] {
			require.Empty(t, tok)
		}
	}
}

// TestMovedRepository: a repository that has another name now is found under its old one, token included.
func TestMovedRepository(t *testing.T) {
	s := hubtest.New(t)
	s.Token = theToken
	s.Commit("org/new", fileMap())
	s.Restrict("org/new", true, true)
	s.Move("org/old", "org/new")
	c := client(t, s, Options{Token: NewToken(theToken)})
	dir, err := resolve(t, c, Repo{ID: "org/old"}).Download(t.Context(), Filter{})
	require.NoError(t, err)
	require.Contains(t, dir, "models--org--old")
	p, err := resolve(t, client(t, s, Options{Token: NewToken(theToken)}), Repo{ID: "org/old"}).File(t.Context(), weights)
	require.NoError(t, err)
	require.FileExists(t, p)
}
