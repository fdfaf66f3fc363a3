package tokenizer_test

import (
	"fmt"

	"github.com/torchgo/torchgo/pretrained/tokenizer"
)

// A tokenizer.json with a vocabulary of a few tokens; for a model folder use FromPretrained.
const tiny = `{"version": "1.0", "added_tokens": [],
	"normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
	"pre_tokenizer": {"type": "BertPreTokenizer"},
	"post_processor": {"type": "BertProcessing", "cls": ["[CLS]", 1], "sep": ["[SEP]", 2]},
	"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
	"model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
		"vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "hello": 3, "cafe": 4, "##s": 5, "!": 6}}}`

func ExampleTokenizer_Encode() {
	tok, err := tokenizer.Parse([]byte(tiny))
	if err != nil {
		fmt.Println(err)
		return
	}
	e, err := tok.Encode("Hello, Cafés!", tokenizer.EncodeOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(e.IDs, e.Tokens, e.Offsets)
	fmt.Println(tok.Decode([]int{3, 4, 5, 6}, true))
	// Output:
	// [1 3 0 4 5 6 2] [[CLS] hello [UNK] cafe ##s ! [SEP]] [[0 0] [0 5] [5 6] [7 11] [11 12] [12 13] [0 0]]
	// hello cafes!
}
