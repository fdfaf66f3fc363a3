package pretrained_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/hub"
	"github.com/torchgo/torchgo/torch"
)

// TestPushToHub: what is pushed is loaded by its id with the same weights; a second time nothing is sent.
func TestPushToHub(t *testing.T) {
	s, _ := newHub(t)
	s.Token = "hf_test"
	t.Setenv("HF_TOKEN", s.Token)
	m, _ := load(t, loaderCase(t, "single"), pretrained.Options{})
	o := pretrained.PushOptions{SaveOptions: pretrained.SaveOptions{MaxShardSize: "10KB"}, Tags: []string{"torchgo", "two words"}, Private: torch.Some(true)}
	info, err := pretrained.PushToHub(ctx, m, "pushed", o)
	require.NoError(t, err)
	require.True(t, hub.IsCommit(info.Commit))
	back, _ := load(t, "me/pushed", pretrained.Options{})
	sameState(t, back, m)
	files := s.Files("me/pushed", info.Commit)
	require.Contains(t, files, "model.safetensors.index.json")
	require.Equal(t, "---\nlibrary_name: transformers\ntags:\n- torchgo\n- \"two words\"\n---\n\n# me/pushed\n", string(files["README.md"]))

	again, err := pretrained.PushToHub(ctx, m, "me/pushed", o)
	require.NoError(t, err)
	require.Equal(t, &hub.CommitInfo{}, again)

	o.Tags, o.CreatePR, o.CommitMessage = append(o.Tags, "third"), true, "One more tag"
	pr, err := pretrained.PushToHub(ctx, m, "me/pushed", o)
	require.NoError(t, err)
	require.Contains(t, pr.PullRequest, "/discussions/1")
	require.Contains(t, string(s.Files("me/pushed", pr.Commit)["README.md"]), "- third\n")
	now, _, err := pretrained.DownloadFiles(ctx, "me/pushed", pretrained.Options{}, "README.md")
	require.NoError(t, err)
	card, err := os.ReadFile(now + "/README.md")
	require.NoError(t, err)
	require.NotContains(t, string(card), "third")

	o.CreatePR, o.Revision = false, "try/it"
	branch, err := pretrained.PushToHub(ctx, m, "me/pushed", o)
	require.NoError(t, err)
	back, _ = load(t, "me/pushed", pretrained.Options{Revision: "try/it"})
	sameState(t, back, m)
	require.NotEqual(t, info.Commit, branch.Commit)

	t.Setenv("HF_TOKEN", "hf_wrong")
	_, err = pretrained.PushToHub(ctx, m, "me/pushed", o)
	require.ErrorIs(t, err, hub.ErrUnauthorized)
	t.Setenv("HF_TOKEN", "")
	_, err = pretrained.PushToHub(ctx, m, "me/pushed", o)
	require.ErrorIs(t, err, hub.ErrUnauthorized)
}

func TestTagsOfAModelCard(t *testing.T) {
	tags := []string{"a", "b", "a", "yes", `q"`}
	for in, want := range map[string]string{
		"# Text\n":                         "---\ntags:\n- a\n- b\n- \"yes\"\n- \"q\\\"\"\n---\n# Text\n",
		"":                                 "---\ntags:\n- a\n- b\n- \"yes\"\n- \"q\\\"\"\n---\n",
		"---\nlicense: mit\n---\n# Text\n": "---\nlicense: mit\ntags:\n- a\n- b\n- \"yes\"\n- \"q\\\"\"\n---\n# Text\n",
		"---\n---\nText":                   "---\ntags:\n- a\n- b\n- \"yes\"\n- \"q\\\"\"\n---\nText",
		"---\ntags:\n  - b\n  - 'c'\nx: 1\n---\nText":     "---\ntags:\n  - b\n  - 'c'\n  - a\n  - \"yes\"\n  - \"q\\\"\"\nx: 1\n---\nText",
		"---\ntags: [b, \"yes\"]\nx: 1\n---\nText":        "---\ntags: [b, \"yes\", a, \"q\\\"\"]\nx: 1\n---\nText",
		"---\ntags: null\n---\nText\n---\nmore":           "---\ntags:\n- a\n- b\n- \"yes\"\n- \"q\\\"\"\n---\nText\n---\nmore",
		"---\ntags:\n- a\n- b\n- \"yes\"\n- 'q\"'\n---\n": "---\ntags:\n- a\n- b\n- \"yes\"\n- 'q\"'\n---\n",
	} {
		got, err := pretrained.TagCard([]byte(in), tags)
		require.NoError(t, err, in)
		require.Equal(t, want, string(got), in)
	}
	same, err := pretrained.TagCard([]byte("---\nanything: [\n"), nil)
	require.NoError(t, err)
	require.Equal(t, "---\nanything: [\n", string(same))
	_, err = pretrained.TagCard([]byte("---\ntags: &x word\n---\n"), tags)
	require.ErrorIs(t, err, pretrained.ErrBadConfig)
}
