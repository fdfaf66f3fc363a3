package tokenizer

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
)

// refEncoding is an encoding as tools/tokenizerref writes it.
type refEncoding struct {
	IDs     []int    `json:"ids"`
	Tokens  []string `json:"tokens"`
	Offsets [][2]int `json:"offsets"`
	TypeIDs []int    `json:"type_ids"`
	Mask    []int    `json:"mask"`
}

func (want *refEncoding) equal(t *testing.T, got Encoding, what ...any) {
	t.Helper()
	require.Equal(t, want.IDs, got.IDs, what...)
	if want.Tokens != nil {
		require.Equal(t, want.Tokens, got.Tokens, what...)
	}
	if want.Offsets != nil {
		require.Equal(t, want.Offsets, got.Offsets, what...)
	}
	require.Equal(t, want.TypeIDs, got.TypeIDs, what...)
	require.Equal(t, want.Mask, got.SpecialTokensMask, what...)
	ones := make([]int, len(want.IDs))
	for i := range ones {
		ones[i] = 1
	}
	require.Equal(t, ones, got.AttentionMask, what...)
}

// rows decodes a file of JSON lines.
func rows[T any](t testing.TB, dir, name string) []T {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, name))
	require.NoError(t, err)
	defer f.Close()
	var out []T
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 64<<20)
	for sc.Scan() {
		var row T
		require.NoError(t, json.Unmarshal(sc.Bytes(), &row))
		out = append(out, row)
	}
	require.NoError(t, sc.Err())
	require.NotEmpty(t, out)
	return out
}

func minilm(t testing.TB) (*Tokenizer, string) {
	t.Helper()
	dir := testdata.Open(t, "tokenizer")
	tok, err := FromPretrained(filepath.Join(dir, "minilm"))
	require.NoError(t, err)
	return tok, dir
}

type sentenceRow struct {
	Text    string      `json:"text"`
	With    refEncoding `json:"with"`
	Without struct {
		IDs     []int    `json:"ids"`
		Offsets [][2]int `json:"offsets"`
	} `json:"without"`
	Decoded string `json:"decoded"`
	Skipped string `json:"skipped"`
	Cut     int    `json:"cut"`
}

func TestSentences(t *testing.T) {
	tok, dir := minilm(t)
	all := rows[sentenceRow](t, dir, "sentences.jsonl")
	require.Len(t, all, 1000)
	cut := 0
	for _, row := range all {
		e, err := tok.Encode(row.Text, EncodeOptions{})
		require.NoError(t, err)
		row.With.equal(t, e, row.Text)

		e, err = tok.Encode(row.Text, EncodeOptions{NoSpecialTokens: true})
		require.NoError(t, err)
		require.Equal(t, row.Without.IDs, e.IDs, row.Text)
		require.Equal(t, row.Without.Offsets, e.Offsets, row.Text)
		require.NotContains(t, e.SpecialTokensMask, 1)

		require.Equal(t, row.Decoded, tok.Decode(row.With.IDs, false), row.Text)
		require.Equal(t, row.Skipped, tok.Decode(row.With.IDs, true), row.Text)

		// sentence-transformers cuts at max_seq_length, 256 for this model.
		e, err = tok.Encode(row.Text, EncodeOptions{Truncation: LongestFirst, MaxLength: 256})
		require.NoError(t, err)
		require.Len(t, e.IDs, row.Cut, row.Text)
		if row.Cut == 256 && len(row.With.IDs) > 256 {
			cut++
			want := append(append([]int(nil), row.With.IDs[:255]...), 102)
			require.Equal(t, want, e.IDs, row.Text)
		}
	}
	require.Greater(t, cut, 5)
}

func TestRandomStrings(t *testing.T) {
	tok, dir := minilm(t)
	type row struct {
		Text string      `json:"text"`
		IDs  []int       `json:"ids"`
		With refEncoding `json:"with"`
	}
	all := rows[row](t, dir, "random.jsonl")
	require.Len(t, all, 3000)
	for _, row := range all {
		e, err := tok.Encode(row.Text, EncodeOptions{NoSpecialTokens: true})
		require.NoError(t, err)
		require.Equal(t, row.IDs, e.IDs, "%+q", row.Text)
	}
	for _, row := range rows[row](t, dir, "random_offsets.jsonl") {
		e, err := tok.Encode(row.Text, EncodeOptions{})
		require.NoError(t, err)
		row.With.equal(t, e, "%+q", row.Text)
	}
}

// A pair is cut as Python's tokenizers does it, and is an error where that raises one.
func TestPairs(t *testing.T) {
	tok, dir := minilm(t)
	type row struct {
		A    string               `json:"a"`
		B    string               `json:"b"`
		Cuts [][4]json.RawMessage `json:"cuts"`
	}
	all := rows[row](t, dir, "pairs.jsonl")
	require.Len(t, all, 200)
	refused := 0
	for _, row := range all {
		for _, c := range row.Cuts {
			var n int
			var how, side string
			var want *refEncoding
			for i, into := range []any{&n, &how, &side, &want} {
				require.NoError(t, json.Unmarshal(c[i], into))
			}
			o := EncodeOptions{MaxLength: n, TruncationSide: Right}
			o.Truncation = map[string]Truncation{"longest_first": LongestFirst, "only_first": OnlyFirst, "only_second": OnlySecond}[how]
			if side == "left" {
				o.TruncationSide = Left
			}
			e, err := tok.EncodePair(row.A, row.B, o)
			if want == nil {
				refused++
				require.ErrorIs(t, err, ErrTooShort, "%d %s %q %q", n, how, row.A, row.B)
				continue
			}
			require.NoError(t, err, "%d %s %q %q", n, how, row.A, row.B)
			want.equal(t, e, "%d %s %s %q %q", n, how, side, row.A, row.B)
		}
	}
	require.Greater(t, refused, 10)
}

func TestBatches(t *testing.T) {
	tok, dir := minilm(t)
	type row struct {
		Batch []string `json:"batch"`
		KW    struct {
			Padding     any    `json:"padding"`
			Multiple    int    `json:"pad_to_multiple_of"`
			Truncation  bool   `json:"truncation"`
			MaxLength   int    `json:"max_length"`
			PaddingSide string `json:"padding_side"`
		} `json:"kw"`
		IDs       [][]int    `json:"ids"`
		Attention [][]int    `json:"attention"`
		TypeIDs   [][]int    `json:"type_ids"`
		Mask      [][]int    `json:"mask"`
		Offsets   [][][2]int `json:"offsets"`
	}
	for _, row := range rows[row](t, dir, "batches.jsonl") {
		o := EncodeOptions{Padding: PadLongest, PadToMultipleOf: row.KW.Multiple, MaxLength: row.KW.MaxLength}
		if row.KW.Padding == "max_length" {
			o.Padding = PadMaxLength
		}
		if row.KW.Truncation {
			o.Truncation = LongestFirst
		}
		if row.KW.PaddingSide == "left" {
			o.PaddingSide = Left
		}
		got, err := tok.EncodeBatch(row.Batch, o)
		require.NoError(t, err)
		require.Len(t, got, len(row.Batch))
		for i, e := range got {
			require.Equal(t, row.IDs[i], e.IDs)
			require.Equal(t, row.Attention[i], e.AttentionMask)
			require.Equal(t, row.TypeIDs[i], e.TypeIDs)
			require.Equal(t, row.Mask[i], e.SpecialTokensMask)
			require.Equal(t, row.Offsets[i], e.Offsets)
			require.Len(t, e.Tokens, len(e.IDs))
		}
	}
}

// Batches are encoded on several goroutines: the order must hold.
func TestBatchOrder(t *testing.T) {
	tok, dir := minilm(t)
	all := rows[sentenceRow](t, dir, "sentences.jsonl")
	var batch []string
	for _, row := range all {
		batch = append(batch, row.Text)
	}
	got, err := tok.EncodeBatch(batch, EncodeOptions{})
	require.NoError(t, err)
	for i := range got {
		require.Equal(t, all[i].With.IDs, got[i].IDs)
	}
	pairs := make([][2]string, len(batch))
	for i := range batch {
		pairs[i] = [2]string{batch[i], batch[len(batch)-1-i]}
	}
	double, err := tok.EncodePairBatch(pairs, EncodeOptions{})
	require.NoError(t, err)
	for i := range double {
		want := append(append([]int(nil), all[i].With.IDs...), all[len(batch)-1-i].With.IDs[1:]...)
		require.Equal(t, want, double[i].IDs)
	}
}
