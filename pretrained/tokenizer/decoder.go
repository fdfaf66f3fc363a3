package tokenizer

import (
	"strings"

	"github.com/torchgo/torchgo/internal/strictjson"
)

// decoder turns tokens into parts of text, in place; the text is their concatenation.
type decoder interface {
	decode(tokens []string) []string
}

// parseDecoder reads the "decoder" section, nil for null.
func parseDecoder(v strictjson.Value) (decoder, error) {
	if v.IsNull() {
		return nil, nil
	}
	o, kind, err := component(v, "decoder")
	if err != nil {
		return nil, err
	}
	switch kind {
	case "WordPiece":
		var d wordPieceDecoder
		err := o.fields(map[string]any{"prefix": &d.prefix, "cleanup": &d.cleanup})
		return d, err
	}
	return nil, unsupported("decoder", kind)
}

type wordPieceDecoder struct {
	prefix  string
	cleanup bool
}

func (d wordPieceDecoder) decode(tokens []string) []string {
	for i, t := range tokens {
		if i > 0 {
			if rest, ok := strings.CutPrefix(t, d.prefix); ok {
				t = rest
			} else {
				t = " " + t
			}
		}
		if d.cleanup {
			t = cleanUp(t, true)
		}
		tokens[i] = t
	}
	return tokens
}

// cleanUp closes the gaps that tokenization leaves in English text. The Rust decoder also contracts
// " do not"; the Python clean_up_tokenization does not.
func cleanUp(s string, doNot bool) string {
	if !strings.Contains(s, " ") {
		return s
	}
	for _, r := range [...][2]string{
		{" .", "."}, {" ?", "?"}, {" !", "!"}, {" ,", ","}, {" ' ", "'"}, {" n't", "n't"}, {" 'm", "'m"},
		{" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
	} {
		if doNot || r[0] != " do not" {
			s = strings.ReplaceAll(s, r[0], r[1])
		}
	}
	return s
}
