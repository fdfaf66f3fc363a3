package tokenizer

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestJSONLines(t *testing.T) {
	tok, dir := minilm(t)
	type line struct {
		IDs     []int    `json:"ids"`
		Tokens  []string `json:"tokens"`
		Offsets [][2]int `json:"offsets"`
		TypeIDs []int    `json:"type_ids"`
		Mask    []int    `json:"special_tokens_mask"`
	}
	for _, row := range rows[sentenceRow](t, dir, "sentences.jsonl") {
		in, err := json.Marshal(row.Text)
		require.NoError(t, err)
		out, err := tok.EncodeJSON(nil, in, EncodeOptions{})
		require.NoError(t, err)
		var got line
		require.NoError(t, json.Unmarshal(out, &got))
		require.Equal(t, row.With.IDs, got.IDs)
		require.Equal(t, row.With.Tokens, got.Tokens)
		require.Equal(t, row.With.Offsets, got.Offsets)
		require.Equal(t, row.With.TypeIDs, got.TypeIDs)
		require.Equal(t, row.With.Mask, got.Mask)

		in, err = json.Marshal(row.With.IDs)
		require.NoError(t, err)
		out, err = tok.DecodeJSON(nil, in, true)
		require.NoError(t, err)
		want := map[string]string{"text": row.Skipped}
		var text map[string]string
		require.NoError(t, json.Unmarshal(out, &text))
		require.Equal(t, want, text)
	}

	out, err := tok.EncodeJSON([]byte("> "), []byte(`["Hi", "<é>"]`), EncodeOptions{})
	require.NoError(t, err)
	require.Equal(t, `> {"ids":[101,7632,102,1026,1041,1028,102],"tokens":["[CLS]","hi","[SEP]","<","e",">","[SEP]"],`+
		`"offsets":[[0,0],[0,2],[0,0],[0,1],[1,2],[2,3],[0,0]],"type_ids":[0,0,0,1,1,1,1],"special_tokens_mask":[1,0,1,0,0,0,1]}`, string(out))

	for _, bad := range []string{``, `3`, `{}`, `["a"]`, `["a","b","c"]`, `["a",3]`, `"a" "b"`, `"\ud800"`, "\"\xff\"", `null`} {
		_, err := tok.EncodeJSON(nil, []byte(bad), EncodeOptions{})
		require.Error(t, err, bad)
	}
	for _, bad := range []string{``, `3`, `["a"]`, `[1.5]`, `[-1]`, `[99999999999]`, `null`} {
		_, err := tok.DecodeJSON(nil, []byte(bad), false)
		require.Error(t, err, bad)
	}
}
