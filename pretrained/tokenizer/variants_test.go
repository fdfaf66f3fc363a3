package tokenizer

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
)

type caseRow struct {
	Text    string       `json:"text"`
	With    refEncoding  `json:"with"`
	Pair    *refEncoding `json:"pair"`
	Split   []int        `json:"split"`
	Decoded string       `json:"decoded"`
	Skipped string       `json:"skipped"`
	Cut     []int        `json:"cut"`
}

type infoRow struct {
	Size      int               `json:"size"`
	Tokens    []*string         `json:"tokens"`
	MaxLength int               `json:"max_length"`
	Special   map[string][2]any `json:"special"`
}

func (info infoRow) check(t *testing.T, tok *Tokenizer) {
	t.Helper()
	require.Equal(t, info.Size, tok.VocabSize())
	for id, want := range info.Tokens {
		got, ok := tok.IDToToken(id)
		require.Equal(t, want != nil, ok, id)
		if want != nil {
			require.Equal(t, *want, got, id)
		}
	}
	for role, want := range info.Special {
		got, id, ok := tok.SpecialToken(role)
		require.True(t, ok, role)
		require.Equal(t, want, [2]any{got, float64(id)}, role)
	}
}

func reversed(s string) string {
	r := []rune(s)
	for i, j := 0, len(r)-1; i < j; i, j = i+1, j-1 {
		r[i], r[j] = r[j], r[i]
	}
	return string(r)
}

func subfolders(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	require.NotEmpty(t, names)
	return names
}

// Single tokenizer.json files: each switch of the components, added tokens with all flags.
func TestVariants(t *testing.T) {
	root := filepath.Join(testdata.Open(t, "tokenizer"), "variants")
	for _, name := range subfolders(t, root) {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(root, name)
			tok, err := Open(filepath.Join(dir, "tokenizer.json"))
			require.NoError(t, err)
			rows[infoRow](t, dir, "info.json")[0].check(t, tok)
			for _, row := range rows[caseRow](t, dir, "cases.jsonl") {
				o := tok.FileOptions()
				e, err := tok.Encode(row.Text, o)
				require.NoError(t, err)
				if name == "sections" {
					require.Equal(t, row.With.IDs, e.IDs, "%+q", row.Text)
					require.Equal(t, row.With.Tokens, e.Tokens, "%+q", row.Text)
					require.Equal(t, row.With.Offsets, e.Offsets, "%+q", row.Text)
					require.Equal(t, row.With.TypeIDs, e.TypeIDs, "%+q", row.Text)
					require.Equal(t, row.With.Mask, e.SpecialTokensMask, "%+q", row.Text)
				} else {
					row.With.equal(t, e, "%+q", row.Text)
				}
				require.Equal(t, row.Decoded, tok.Decode(row.With.IDs, false), "%+q", row.Text)
				require.Equal(t, row.Skipped, tok.Decode(row.With.IDs, true), "%+q", row.Text)
				if row.Pair != nil {
					e, err = tok.EncodePair(row.Text, reversed(row.Text), o)
					require.NoError(t, err)
					row.Pair.equal(t, e, "%+q", row.Text)
				}
				o.NoSpecialTokens, o.SplitSpecialTokens = true, true
				e, err = tok.Encode(row.Text, o)
				require.NoError(t, err)
				require.Equal(t, row.Split, e.IDs, "%+q", row.Text)
			}
		})
	}
}

// Folders as transformers' AutoTokenizer reads them.
func TestFolders(t *testing.T) {
	root := filepath.Join(testdata.Open(t, "tokenizer"), "folders")
	for _, name := range subfolders(t, root) {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(root, name)
			tok, err := FromPretrained(dir)
			require.NoError(t, err)
			info := rows[infoRow](t, dir, "info.json")[0]
			info.check(t, tok)
			require.Equal(t, info.MaxLength, tok.ModelMaxLength())
			for _, row := range rows[caseRow](t, dir, "cases.jsonl") {
				e, err := tok.Encode(row.Text, EncodeOptions{})
				require.NoError(t, err)
				row.With.equal(t, e, "%+q", row.Text)
				require.Equal(t, row.Decoded, tok.Decode(row.With.IDs, false), "%+q", row.Text)
				require.Equal(t, row.Skipped, tok.Decode(row.With.IDs, true), "%+q", row.Text)
				e, err = tok.Encode(row.Text, EncodeOptions{MaxLength: 7})
				require.NoError(t, err)
				require.Equal(t, row.Cut, e.IDs, "%+q", row.Text)
			}
		})
	}
}

// vocab.txt alone gives what tokenizer.json gives.
func TestMiniLMVocab(t *testing.T) {
	tok, dir := minilm(t)
	only := t.TempDir()
	for _, f := range []string{"vocab.txt", "tokenizer_config.json"} {
		data, err := os.ReadFile(filepath.Join(dir, "minilm", f))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(only, f), data, 0o600))
	}
	small, err := FromPretrained(only)
	require.NoError(t, err)
	require.Equal(t, 30522, small.VocabSize())
	require.Equal(t, tok.VocabSize(), small.VocabSize())
	require.Equal(t, 512, small.ModelMaxLength())
	require.Equal(t, tok.AddedTokens(), small.AddedTokens())
	for _, row := range rows[sentenceRow](t, dir, "sentences.jsonl") {
		e, err := small.Encode(row.Text, EncodeOptions{})
		require.NoError(t, err)
		row.With.equal(t, e, row.Text)
	}
}
