// Package tokenizer turns text into token ids and back as Hugging Face's tokenizers and transformers do,
// exactly: ids, offsets, templates, truncation, padding, decoding.
//
// A pipeline read from tokenizer.json does the work: a normalizer rewrites the text, a pre-tokenizer cuts it
// into words, the model maps each word to tokens, a post-processor adds special tokens, a decoder goes back.
// Built so far are the components of the BERT family; a file that names another one is refused with
// [ErrUnsupported].
package tokenizer

import (
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/torchgo/torchgo/internal/fileerr"
)

// Tokenizer is safe for concurrent use.
type Tokenizer struct {
	normalizer   normalizer
	preTokenizer preTokenizer
	model        model
	post         postProcessor
	decoder      decoder
	added        *addedVocab

	pad            padToken
	special        map[string]string // by role: "cls_token", …
	modelMaxLength int
	cleanUp        bool
	truncateLeft   bool
	padLeft        bool
	fileOptions    EncodeOptions
}

// Open reads one tokenizer.json and nothing else, as tokenizers' Tokenizer.from_file does.
func Open(path string) (*Tokenizer, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	t, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %s: %w", fileerr.Plain(path), err)
	}
	return t, nil
}

// Parse is Open for the contents of a file.
func Parse(data []byte) (*Tokenizer, error) {
	p, err := parseFile(data)
	if err != nil {
		return nil, err
	}
	t := newTokenizer(p)
	t.added.add(p.added, t.model.vocab(), t.normalizer)
	if err := t.finish(); err != nil {
		return nil, err
	}
	for _, r := range []string{"unk", "sep", "pad", "cls", "mask"} {
		// The names that the family has in every checkpoint; a folder's config may say otherwise.
		if tok := "[" + strings.ToUpper(r) + "]"; t.added.special[tok] {
			t.special[r+"_token"] = tok
		}
	}
	if p.pad != nil {
		t.pad = *p.pad
	} else {
		t.setPad(nil)
	}
	return t, nil
}

func newTokenizer(p *parts) *Tokenizer {
	return &Tokenizer{
		normalizer: p.normalizer, preTokenizer: p.preTokenizer, model: p.model, post: p.post, decoder: p.decoder,
		added: newAddedVocab(), special: map[string]string{}, fileOptions: p.options,
	}
}

// finish prepares the search for added tokens and checks that the template's tokens exist.
func (t *Tokenizer) finish() error {
	if err := t.added.build(); err != nil {
		return err
	}
	for _, id := range t.post.ids() {
		if _, ok := t.IDToToken(id); !ok {
			return invalid("post_processor: no token has id %d", id)
		}
	}
	return nil
}

// setPad takes the padding token of the special tokens, else the file's, as transformers does.
func (t *Tokenizer) setPad(file *padToken) {
	if file != nil {
		t.pad = *file
	}
	if tok, ok := t.special["pad_token"]; ok {
		if id, ok := t.TokenToID(tok); ok {
			t.pad.id, t.pad.token = id, tok
		}
	}
}

// FileOptions are the options that the truncation and padding sections of tokenizer.json ask for. Python's
// tokenizers applies them by default, transformers and the zero EncodeOptions do not.
func (t *Tokenizer) FileOptions() EncodeOptions { return t.fileOptions }

// TokenToID is the id of a token; false if it is unknown.
func (t *Tokenizer) TokenToID(tok string) (int, bool) {
	if id, ok := t.added.ids[tok]; ok {
		return id, true
	}
	id, ok := t.model.vocab().ids[tok]
	return id, ok
}

// IDToToken is the token with an id; false if there is none. For an added token that is looked for in
// normalized text it is its normalized form.
func (t *Tokenizer) IDToToken(id int) (string, bool) {
	if _, ok := t.added.tokens[id]; ok {
		return t.added.form(id), true
	}
	return t.model.vocab().token(id)
}

// VocabSize is the number of tokens, added ones included (len(tokenizer) in transformers).
func (t *Tokenizer) VocabSize() int {
	n := len(t.model.vocab().ids)
	for tok := range t.added.ids {
		if _, ok := t.model.vocab().ids[tok]; !ok {
			n++
		}
	}
	return n
}

// ModelMaxLength is model_max_length of tokenizer_config.json; 0 if there is no limit.
func (t *Tokenizer) ModelMaxLength() int { return t.modelMaxLength }

// SpecialToken gives the token and id of a role: "unk_token", "sep_token", "pad_token", "cls_token",
// "mask_token", "bos_token" or "eos_token".
func (t *Tokenizer) SpecialToken(role string) (tok string, id int, ok bool) {
	tok, ok = t.special[role]
	if ok {
		id, ok = t.TokenToID(tok)
	}
	return tok, id, ok
}

// PadID is the id that padding uses; false if there is no padding token.
func (t *Tokenizer) PadID() (int, bool) { return t.pad.id, t.pad.token != "" }

// AddedTokens gives the added tokens by id.
func (t *Tokenizer) AddedTokens() map[int]AddedToken {
	return maps.Clone(t.added.tokens)
}

// NumSpecialTokens is the number of tokens that the template adds to a text or to a pair.
func (t *Tokenizer) NumSpecialTokens(pair bool) int { return t.post.added(pair) }

// Decode turns ids into text. Ids that stand for no token are left out, as transformers does; so are special
// tokens if skipSpecialTokens is set.
func (t *Tokenizer) Decode(ids []int, skipSpecialTokens bool) string {
	tokens := make([]string, 0, len(ids))
	for _, id := range ids {
		if tok, ok := t.IDToToken(id); ok && !(skipSpecialTokens && t.added.special[tok]) {
			tokens = append(tokens, tok)
		}
	}
	s := ""
	if t.decoder == nil {
		s = strings.Join(tokens, " ")
	} else {
		s = strings.Join(t.decoder.decode(tokens), "")
	}
	if t.cleanUp {
		s = cleanUp(s, false)
	}
	return s
}

var errNoFiles = errors.New("neither tokenizer.json nor vocab.txt")
