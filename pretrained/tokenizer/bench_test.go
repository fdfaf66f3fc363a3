package tokenizer

import (
	"strings"
	"testing"
)

// benchTexts are the reference sentences of English and of everything.
func benchTexts(b *testing.B) (tok *Tokenizer, english, mixed []string) {
	tok, dir := minilm(b)
	for _, row := range rows[sentenceRow](b, dir, "sentences.jsonl") {
		mixed = append(mixed, row.Text)
		if strings.IndexFunc(row.Text, func(r rune) bool { return r >= 0x80 }) < 0 {
			english = append(english, row.Text)
		}
	}
	return tok, english, mixed
}

func benchEncode(b *testing.B, tok *Tokenizer, texts []string, o EncodeOptions) {
	n := 0
	for _, s := range texts {
		n += len(s)
	}
	b.SetBytes(int64(n))
	b.ReportAllocs()
	for b.Loop() {
		for _, s := range texts {
			if _, err := tok.Encode(s, o); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkEncodeASCII(b *testing.B) {
	tok, english, _ := benchTexts(b)
	benchEncode(b, tok, english, EncodeOptions{})
}

func BenchmarkEncodeMixed(b *testing.B) {
	tok, _, mixed := benchTexts(b)
	benchEncode(b, tok, mixed, EncodeOptions{})
}

func BenchmarkEncodeLong(b *testing.B) {
	tok, english, _ := benchTexts(b)
	benchEncode(b, tok, []string{strings.Repeat(strings.Join(english, "\n"), 3)}, EncodeOptions{})
}

func BenchmarkEncodeBatch(b *testing.B) {
	tok, _, mixed := benchTexts(b)
	n := 0
	for _, s := range mixed {
		n += len(s)
	}
	b.SetBytes(int64(n))
	for b.Loop() {
		if _, err := tok.EncodeBatch(mixed, EncodeOptions{Padding: PadLongest, MaxLength: 256, Truncation: LongestFirst}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	tok, _, mixed := benchTexts(b)
	var ids [][]int
	n := 0
	for _, s := range mixed {
		e, err := tok.Encode(s, EncodeOptions{})
		if err != nil {
			b.Fatal(err)
		}
		ids = append(ids, e.IDs)
		n += len(tok.Decode(e.IDs, true))
	}
	b.SetBytes(int64(n))
	for b.Loop() {
		for _, e := range ids {
			tok.Decode(e, true)
		}
	}
}

func BenchmarkFromPretrained(b *testing.B) {
	_, dir := minilm(b)
	for b.Loop() {
		if _, err := FromPretrained(dir + "/minilm"); err != nil {
			b.Fatal(err)
		}
	}
}
