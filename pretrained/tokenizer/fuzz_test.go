package tokenizer

import (
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// consistent checks what holds for every encoding.
func consistent(t *testing.T, e Encoding, chars ...int) {
	t.Helper()
	n := len(e.IDs)
	require.True(t, len(e.Tokens) == n && len(e.Offsets) == n && len(e.TypeIDs) == n && len(e.SpecialTokensMask) == n && len(e.AttentionMask) == n)
	most := 0
	for _, c := range chars {
		most = max(most, c)
	}
	for i, o := range e.Offsets {
		// Reordered marks can turn an offset pair around, as in the reference, but not point outside.
		require.True(t, o[0] >= 0 && o[1] >= 0 && o[0] <= most && o[1] <= most, "%v of %d", o, most)
		if e.SpecialTokensMask[i] == 1 {
			require.Equal(t, [2]int{}, o)
		}
	}
}

func FuzzEncode(f *testing.F) {
	tok, dir := minilm(f)
	for _, row := range rows[sentenceRow](f, dir, "sentences.jsonl")[:150] {
		f.Add(row.Text, row.Text[:len(row.Text)/2], 16)
	}
	f.Fuzz(func(t *testing.T, a, b string, n int) {
		e, err := tok.Encode(a, EncodeOptions{})
		require.NoError(t, err)
		chars := utf8.RuneCountInString(a)
		consistent(t, e, chars)
		require.True(t, utf8.ValidString(tok.Decode(e.IDs, false)))
		plain, err := tok.Encode(a, EncodeOptions{NoSpecialTokens: true})
		require.NoError(t, err)
		require.Equal(t, e.IDs[1:len(e.IDs)-1], plain.IDs)
		for i, id := range plain.IDs {
			name, ok := tok.IDToToken(id)
			require.True(t, ok)
			require.Equal(t, name, plain.Tokens[i])
		}
		n = 3 + (n&0xFF+0xFF)%0xFF
		for _, side := range []Side{Left, Right} {
			// Truncation, which stops early, keeps what cutting the whole would.
			cut, err := tok.Encode(a, EncodeOptions{MaxLength: n, NoSpecialTokens: true, TruncationSide: side})
			require.NoError(t, err)
			want := plain.IDs[:min(n, len(plain.IDs))]
			if side == Left {
				want = plain.IDs[max(0, len(plain.IDs)-n):]
			}
			require.Equal(t, want, cut.IDs)
			e, err = tok.EncodePair(a, b, EncodeOptions{MaxLength: n, TruncationSide: side})
			require.NoError(t, err)
			consistent(t, e, chars, utf8.RuneCountInString(b))
			require.LessOrEqual(t, len(e.IDs), n)
		}
	})
}

func FuzzTokenizerJSON(f *testing.F) {
	f.Add([]byte(small))
	f.Add([]byte(`{"model":{"vocab":{"a":0},"unk_token":"a","continuing_subword_prefix":"","max_input_chars_per_word":0}}`))
	f.Add([]byte(`{"added_tokens":[{"id":1,"content":"b","lstrip":true,"rstrip":true,"single_word":true}],"normalizer":{"type":"Sequence","normalizers":[{"type":"NFD"},{"type":"Lowercase"}]},` +
		`"padding":{"strategy":"BatchLongest","direction":"Left","pad_id":0,"pad_type_id":0,"pad_token":"a","pad_to_multiple_of":8},"truncation":{"max_length":4,"strategy":"OnlyFirst","stride":0},` +
		`"post_processor":{"type":"BertProcessing","sep":["a",0],"cls":["a",0]},"model":{"vocab":{"a":0},"unk_token":"a","continuing_subword_prefix":"##","max_input_chars_per_word":9}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		tok, err := Parse(data)
		if err != nil {
			return
		}
		for _, s := range []string{"", " ", "a", "ab [CLS] b\u0301", "中 \u0344\u0316 İ  b  a", "  b \t b"} {
			for _, o := range []EncodeOptions{{}, tok.FileOptions(), {MaxLength: 3, NoSpecialTokens: true, TruncationSide: Left}} {
				e, err := tok.Encode(s, o)
				if err != nil {
					continue
				}
				consistent(t, e, utf8.RuneCountInString(s))
				tok.Decode(e.IDs, true)
				if _, err = tok.EncodePair(s, "b a", o); err != nil {
					continue
				}
			}
		}
		tok.VocabSize()
	})
}
