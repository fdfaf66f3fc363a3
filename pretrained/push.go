package pretrained

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/pretrained/hub"
	"github.com/torchgo/torchgo/torch"
)

// PushOptions are the optional arguments of PushToHub.
type PushOptions struct {
	SaveOptions

	CommitMessage     string // default "Upload model"
	CommitDescription string
	Revision          string          // branch, made if it isn't there; default main
	CreatePR          bool            // open a pull request in place of moving the branch
	Private           torch.Opt[bool] // of a new repository; default: what its owner has set
	Tags              []string        // for the model card, besides ModelTags

	Token          hub.Token // default: that of the environment
	UploadProgress func(hub.Progress)
}

// PushToHub is push_to_hub: it makes the repository unless it is there, saves the model in a temporary
// folder and commits what differs from what the repository has, the model card with its tags too. All of the
// CommitInfo is empty if nothing differs. A name without an organisation is one of the token's owner.
func PushToHub(ctx context.Context, m Model, id string, o PushOptions) (_ *hub.CommitInfo, err error) {
	dir, err := os.MkdirTemp("", "torchgo-push-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// What the hub has of the model card isn't worth a place in the user's cache.
	c, err := hub.New(hub.Options{Token: o.Token, CacheDir: filepath.Join(dir, "cache"), Progress: o.UploadProgress})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var private *bool
	if p, ok := o.Private.Get(); ok {
		private = &p
	}
	if id, err = c.CreateRepo(ctx, hub.Repo{ID: id}, private); err != nil {
		return nil, err
	}
	r := hub.Repo{ID: id, Revision: o.Revision}
	tags := slices.Clone(o.Tags)
	if t, ok := m.(interface{ ModelTags() []string }); ok {
		tags = append(tags, t.ModelTags()...)
	}
	card, err := modelCard(ctx, c, id, tags)
	if err != nil {
		return nil, err
	}
	model := filepath.Join(dir, "model")
	if err := SavePretrained(ctx, m, model, o.SaveOptions); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(model, "README.md"), card, 0o666); err != nil {
		return nil, err
	}
	if o.Revision != "" && !strings.HasPrefix(o.Revision, "refs/pr") {
		if err := c.CreateBranch(ctx, r, o.Revision); err != nil && !(o.CreatePR && errors.Is(err, hub.ErrForbidden)) {
			return nil, err
		}
	}
	var files []hub.Upload
	err = fs.WalkDir(os.DirFS(model), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, hub.Upload{Name: name, Path: filepath.Join(model, filepath.FromSlash(name))})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if o.CommitMessage == "" {
		o.CommitMessage = "Upload model"
	}
	return c.Commit(ctx, r, files, hub.CommitOptions{Message: o.CommitMessage, Description: o.CommitDescription, CreatePR: o.CreatePR})
}

// modelCard is the README.md of a repository, or a new one, with tags.
func modelCard(ctx context.Context, c *hub.Client, id string, tags []string) ([]byte, error) {
	s, err := c.Resolve(ctx, hub.Repo{ID: id})
	if err != nil {
		return nil, err
	}
	path, err := s.File(ctx, "README.md")
	card := []byte("---\nlibrary_name: transformers\n---\n\n# " + id + "\n")
	if err == nil {
		card, err = os.ReadFile(path)
	}
	if err != nil && !errors.Is(err, hub.ErrEntryNotFound) {
		return nil, err
	}
	return tagCard(card, tags)
}

var (
	frontMatter = regexp.MustCompile(`\A---[ \t]*\r?\n((?:.*\n)*?)---[ \t]*(?:\r?\n|\z)`)
	tagsLine    = regexp.MustCompile(`(?m)^tags[ \t]*:[ \t]*(.*?)[ \t]*\r?$`)
	tagItem     = regexp.MustCompile(`\A([ \t]*)-[ \t]+(.*?)[ \t]*\r?\n?\z`)
	plainTag    = regexp.MustCompile(`\A[A-Za-z][A-Za-z0-9_.-]*\z`)
)

// tagCard adds to the front matter of a model card the tags that it lacks. All else stays as it is.
func tagCard(card []byte, tags []string) ([]byte, error) {
	if len(tags) == 0 {
		return card, nil
	}
	m := frontMatter.FindSubmatchIndex(card)
	if m == nil {
		return append([]byte("---\n"+tagLines("tags:\n", "", tags)+"---\n"), card...), nil
	}
	head := string(card[m[2]:m[3]])
	join := func(head string) []byte {
		return bytes.Join([][]byte{[]byte("---\n" + head + "---\n"), card[m[1]:]}, nil)
	}
	t := tagsLine.FindStringSubmatchIndex(head)
	if t == nil {
		return join(head + tagLines("tags:\n", "", tags)), nil
	}
	value, end := head[t[2]:t[3]], t[1]
	switch {
	case value == "" || value == "null" || value == "~" || value == "[]":
		items := head[min(end+1, len(head)):]
		var have []string
		indent, length := "", 0
		for line := range strings.Lines(items) {
			item := tagItem.FindStringSubmatch(line)
			if item == nil {
				break
			}
			indent, length = item[1], length+len(line)
			have = append(have, unquote(item[2]))
		}
		before := head[:t[0]] + "tags:\n" + items[:length]
		return join(before + tagLines("", indent, without(tags, have)) + items[length:]), nil
	case strings.HasPrefix(value, "[") && strings.HasSuffix(value, "]"):
		var have []string
		for part := range strings.SplitSeq(value[1:len(value)-1], ",") {
			have = append(have, unquote(strings.TrimSpace(part)))
		}
		more := ""
		for _, tag := range without(tags, have) {
			more += ", " + quoteTag(tag)
		}
		return join(head[:t[3]-1] + more + head[t[3]-1:]), nil
	}
	return nil, &Error{File: "README.md", Class: ErrBadConfig, Detail: "tags", Expected: "a list", Actual: fmt.Sprintf("%.80q", value), Remedy: "add the tags by hand"}
}

func tagLines(head, indent string, tags []string) string {
	for _, tag := range without(tags, nil) {
		head += indent + "- " + quoteTag(tag) + "\n"
	}
	return head
}

// without gives each tag once that isn't in have.
func without(tags, have []string) (more []string) {
	for _, tag := range tags {
		if !slices.Contains(have, tag) && !slices.Contains(more, tag) {
			more = append(more, tag)
		}
	}
	return more
}

// quoteTag makes a YAML text. JSON's texts are YAML's, too.
func quoteTag(tag string) string {
	switch strings.ToLower(tag) {
	case "true", "false", "null", "yes", "no", "on", "off", "y", "n":
	default:
		if plainTag.MatchString(tag) {
			return tag
		}
	}
	data, err := json.Marshal(tag)
	if err != nil {
		panic(err) // a string can't fail
	}
	return string(data)
}

func unquote(s string) string {
	if len(s) > 1 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		var plain string
		if s[0] == '"' && json.Unmarshal([]byte(s), &plain) == nil {
			return plain
		}
		return s[1 : len(s)-1]
	}
	return s
}
