package pretrained

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/torchgo/torchgo/internal/weights"
	"github.com/torchgo/torchgo/pretrained/hub"
	"github.com/torchgo/torchgo/pretrained/peft"
	"github.com/torchgo/torchgo/pretrained/safetensors"
)

// isHubID tells whether a path that isn't there may be meant as an id of the hub.
func isHubID(path string) bool {
	for _, suffix := range []string{".safetensors", ".bin", ".pt", ".pth", ".gguf", ".json"} {
		if strings.HasSuffix(path, suffix) {
			return false
		}
	}
	return hub.CheckID(path) == nil
}

// hubModel is a model on the hub, at the one commit that everything comes from.
type hubModel struct {
	*hub.Snapshot
	opts Options
}

func openHub(ctx context.Context, id string, opts Options) (*hub.Client, *hubModel, error) {
	c, err := hub.New(hub.Options{CacheDir: opts.CacheDir, Token: opts.Token, NoToken: opts.NoToken, Offline: opts.LocalFilesOnly,
		ForceDownload: opts.ForceDownload, Progress: opts.DownloadProgress})
	if err != nil {
		return nil, nil, err
	}
	s, err := c.Resolve(ctx, hub.Repo{ID: id, Revision: opts.Revision})
	if err != nil {
		c.Close()
		return nil, nil, notHere(err)
	}
	return c, &hubModel{s, opts}, nil
}

// notHere adds to an error of a name that the hub doesn't know what else the name could have been.
func notHere(err error) error {
	var e *Error
	if errors.As(err, &e) && (e.Class == hub.ErrRepoNotFound || e.Class == hub.ErrUnavailable || e.Class == hub.ErrOffline) {
		more := *e
		more.Detail = "no such file or folder, and as an id: " + e.Detail
		return &more
	}
	return err
}

// resolveHub brings config and weights of a hub id to the cache, or for a plan the weights' headers to
// memory. The order in which names are tried is that of a directory; a name that the commit has not is asked
// for once, and the cache remembers.
func resolveHub(ctx context.Context, id string, opts Options) (*files, error) {
	c, m, err := openHub(ctx, id, opts)
	if err != nil {
		return nil, err
	}
	keep := false
	defer func() {
		if !keep {
			c.Close()
		}
	}()
	f := &files{commit: m.Commit}
	if opts.GGUFFile != "" {
		keep, err = true, m.useGGUF(ctx, c, f)
		return f, err
	}
	err = m.readConfig(ctx, f)
	if missing := errors.Is(err, fs.ErrNotExist); err == nil || missing {
		var hasErr error
		if f.adapter, hasErr = m.has(ctx, m.in(peft.ConfigName)); hasErr != nil {
			return nil, hasErr
		}
		if f.adapter && missing {
			return nil, onlyAdapter(id + "/" + m.in(peft.ConfigName))
		}
	}
	if err != nil {
		return nil, err
	}
	name, err := m.findWeights(ctx, f)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(name, ".json") {
		if f.weights, err = m.File(ctx, name); err != nil {
			return nil, err
		}
		index, err := safetensors.ReadIndex(f.weights)
		if err != nil {
			return nil, err
		}
		shards := index.Files()
		for i, s := range shards {
			shards[i] = path.Join(path.Dir(name), s)
		}
		if !opts.headersOnly {
			if err := m.Files(ctx, shards...); err != nil {
				return nil, missingShard(err, name)
			}
		}
	} else {
		f.weights = filepath.Join(m.Dir(), filepath.FromSlash(name))
		if !opts.headersOnly {
			if f.weights, err = m.File(ctx, name); err != nil {
				return nil, err
			}
		}
	}
	if opts.headersOnly {
		keep = true // the headers come later
		f.done = c.Close
		f.open = func(p string) (*weights.File, error) { return m.openRemote(ctx, p) }
		return f, nil
	}
	// How to generate is no reason to fail.
	if _, err := m.File(ctx, m.in("generation_config.json")); ctx.Err() != nil {
		return nil, err
	}
	return f, nil
}

// useGGUF brings a GGUF file of the commit to the cache, or for a plan its header to memory.
func (m *hubModel) useGGUF(ctx context.Context, c *hub.Client, f *files) (err error) {
	name := m.in(m.opts.GGUFFile)
	f.done = c.Close
	if m.opts.headersOnly {
		f.weights = filepath.Join(m.Dir(), filepath.FromSlash(name))
		f.open = func(p string) (*weights.File, error) { return m.openRemote(ctx, p) }
		return f.useGGUF(m.opts)
	}
	if f.weights, err = m.File(ctx, name); err != nil {
		return err
	}
	// How to generate is no reason to fail.
	if _, err := m.File(ctx, m.in("generation_config.json")); ctx.Err() != nil {
		return err
	}
	return f.useGGUF(m.opts)
}

// readConfig finds the model's config: the caller's, or config.json of the commit.
func (m *hubModel) readConfig(ctx context.Context, f *files) (err error) {
	dir := m.Dir()
	if m.opts.ConfigInstance == nil && m.opts.ConfigPath == "" {
		path, err := m.File(ctx, m.in("config.json"))
		switch {
		case errors.Is(err, hub.ErrEntryNotFound) && m.opts.AllowDefaultConfig:
		case errors.Is(err, hub.ErrEntryNotFound):
			return &Error{File: m.Repo.ID + "/" + m.in("config.json"), Class: ErrBadConfig, Err: fs.ErrNotExist, Remedy: noConfig}
		case err != nil:
			return err
		default:
			dir = filepath.Dir(path)
		}
	}
	return f.readConfig(dir, m.opts)
}

func missingShard(err error, index string) error {
	var e *Error
	if errors.Is(err, hub.ErrEntryNotFound) && errors.As(err, &e) {
		return &Error{File: e.File, Class: ErrMissingShard, Detail: "named by " + index, Err: err}
	}
	return err
}

// in is the name of a file in the subfolder that was asked for.
func (m *hubModel) in(name string) string { return path.Join(m.opts.Subfolder, name) }

// has tells whether the commit has a file, without downloading it.
func (m *hubModel) has(ctx context.Context, name string) (bool, error) {
	ok, err := m.Has(ctx, name)
	if errors.Is(err, hub.ErrOffline) {
		return false, nil // what is not in the cache can't be loaded
	}
	return ok, err
}

// findWeights gives the name of the weights, or of their index.
func (m *hubModel) findWeights(ctx context.Context, f *files) (string, error) {
	id := m.Repo.ID
	if name, ok := f.raw["transformers_weights"].(string); ok {
		return m.in(name), inFile(checkWeightsName(name), f.config)
	}
	l := m.opts.layout()
	if err := l.Check(id); err != nil {
		return "", err
	}
	candidates := l.Names()
	for _, name := range candidates {
		if there, err := m.has(ctx, m.in(name)); err != nil || there {
			return m.in(name), err
		}
	}
	e := &Error{File: id, Class: ErrMissingShard, Detail: "commit " + m.Commit, Expected: strings.Join(candidates, " or "), Actual: "none of them"}
	for _, other := range l.Others() {
		for _, name := range other.Names() {
			there, err := m.has(ctx, m.in(name))
			if err != nil {
				return "", err
			}
			if there {
				e.Remedy = "there is a " + name + " " + other.Why
				return "", e
			}
		}
	}
	if m.Offline() {
		e.Remedy = "the network may not be used; the cache has no weights of this commit"
		e.Err = hub.ErrOffline
	}
	return "", e
}

// openRemote opens a file of weights for its header.
func (m *hubModel) openRemote(ctx context.Context, p string) (*weights.File, error) {
	rel, err := filepath.Rel(m.Dir(), p)
	if err != nil {
		return nil, err
	}
	name := filepath.ToSlash(rel)
	if cached, err := m.Cached(name); err != nil {
		return nil, err
	} else if cached != "" {
		return weights.Open(cached)
	}
	r, err := m.Open(ctx, name)
	if err != nil {
		return nil, missingShard(err, "the index")
	}
	return weights.New(r, r.Size(), p)
}

// DownloadFiles brings the files of a hub id that patterns choose (see hub.Filter) to the cache, those in
// Subfolder of the options too. It gives their directory and the commit that they are of, which as Revision
// makes a later load take the same. A path that exists is given back as it is, without a commit.
func DownloadFiles(ctx context.Context, path string, opts Options, patterns ...string) (dir, commit string, err error) {
	if _, err := os.Stat(path); err == nil || !errors.Is(err, fs.ErrNotExist) || !isHubID(path) {
		return path, "", nil // what is wrong with it, who opens it will say
	}
	c, m, err := openHub(ctx, path, opts)
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	dir, err = m.Download(ctx, hub.Filter{Allow: patterns, Ignore: []string{"onnx/", "openvino/"}})
	return dir, m.Commit, err
}

// TextFiles are patterns of what belongs to a tokenizer.
var TextFiles = []string{"*config.json", "*tokenizer*", "*vocab*", "*merges.txt", "*tokens*.json", "*.model", "*chat_template*"}

// hubConfig reads the config of a hub id, and nothing else.
func (f *files) hubConfig(ctx context.Context, id string, opts Options) error {
	c, m, err := openHub(ctx, id, opts)
	if err != nil {
		return err
	}
	defer c.Close()
	return m.readConfig(ctx, f)
}
