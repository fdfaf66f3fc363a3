package tokenizer

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/strictjson"
)

// roles are the special tokens that transformers knows by name, in its order.
var roles = []string{"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}

// bertRoles are BertTokenizer's defaults.
var bertRoles = map[string]string{
	"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]",
}

// bertClasses are the classes that transformers builds as BertTokenizer; bertTypes the model types for which
// it does so where no class is named.
var (
	bertClasses = []string{
		"BertTokenizer", "ConvBertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "LayoutLMTokenizer",
		"LxmertTokenizer", "MobileBertTokenizer", "SqueezeBertTokenizer",
	}
	bertTypes = []string{
		"align", "bark", "bert", "blip", "bros", "chinese_clip", "convbert", "distilbert", "electra", "ernie",
		"flava", "git", "grounding-dino", "layoutlm", "lxmert", "megatron-bert", "mm-grounding-dino",
		"mobilebert", "nezha", "nomic_bert", "qdqbert", "realm", "retribert", "squeezebert", "tvp", "vilt",
		"visual_bert",
	}
)

// config is what tokenizer_config.json, special_tokens_map.json and config.json say.
type config struct {
	class        string
	modelType    string
	lowercase    bool
	stripAccents *bool
	chinese      bool
	cleanUp      bool
	truncateLeft bool
	padLeft      bool
	maxLength    int
	roles        map[string]AddedToken
	noRole       map[string]bool // set to null
	extra        []AddedToken
	added        map[int]AddedToken // added_tokens_decoder
	hasAdded     bool
}

// FromPretrained reads the tokenizer of a model folder as transformers' AutoTokenizer does: tokenizer.json
// or, where there is none, vocab.txt, with what tokenizer_config.json and special_tokens_map.json add. For
// the tokenizer classes of the BERT family transformers takes only the vocabulary and the added tokens from
// tokenizer.json and the rest (lowercase, accents, template) from tokenizer_config.json; so does this.
func FromPretrained(dir string) (*Tokenizer, error) {
	t, err := fromPretrained(dir)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	return t, nil
}

func fromPretrained(dir string) (*Tokenizer, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("%s: %w", fileerr.Plain(dir), errors.Unwrap(err))
	}
	cfg, err := readConfig(dir)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "tokenizer.json")
	var p *parts
	data, err := readFile(path)
	switch {
	case err == nil:
		if p, err = parseFile(data); err != nil {
			return nil, fmt.Errorf("%s: %w", fileerr.Plain(path), err)
		}
	case errors.Is(err, fs.ErrNotExist):
		path = filepath.Join(dir, "vocab.txt")
		data, err := readFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: %w", fileerr.Plain(dir), errNoFiles)
		} else if err != nil {
			return nil, err
		}
		if p, err = parseVocab(data); err != nil {
			return nil, fmt.Errorf("%s: %w", fileerr.Plain(path), err)
		}
		cfg.class = bertClasses[0]
	default:
		return nil, err
	}
	t, err := assemble(p, cfg)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fileerr.Plain(path), err)
	}
	return t, nil
}

// parseVocab reads a vocab.txt: a token a line, its number the id; the last one of equal lines counts.
func parseVocab(data []byte) (*parts, error) {
	if !utf8.Valid(data) {
		return nil, invalid("not UTF-8")
	}
	ids, n := map[string]int{}, 0
	for line := range strings.Lines(string(data)) {
		ids[strings.TrimRightFunc(line, unicode.IsSpace)] = n
		n++
	}
	// Repeated lines leave holes in the ids, but not large ones beside the lines themselves.
	v := &vocab{ids: ids, tokens: make([]string, n), used: make([]bool, n)}
	for tok, id := range ids {
		v.tokens[id], v.used[id] = tok, true
	}
	return &parts{model: &wordPiece{v: v}, post: plainTemplate()}, nil
}

// assemble makes the tokenizer that transformers would.
func assemble(p *parts, cfg *config) (*Tokenizer, error) {
	bert := cfg.isBert()
	if bert {
		for role, tok := range bertRoles {
			if _, ok := cfg.roles[role]; !ok && !cfg.noRole[role] {
				cfg.roles[role] = AddedToken{Content: tok, Special: true}
			}
		}
		n := newBertNormalizer()
		n.lowercase, n.stripAccents, n.handleChinese = cfg.lowercase, cfg.stripAccents, cfg.chinese
		p.normalizer = n.build()
		p.preTokenizer = bertPreTokenizer{n.u}
		p.decoder = wordPieceDecoder{"##", true}
		unk := bertRoles["unk_token"]
		if t, ok := cfg.roles["unk_token"]; ok {
			unk = t.Content
		}
		p.model = newWordPiece(p.model.vocab(), unk, "##", 100)
	}
	t := newTokenizer(p)
	t.modelMaxLength, t.cleanUp = cfg.maxLength, cfg.cleanUp
	t.truncateLeft, t.padLeft = cfg.truncateLeft, cfg.padLeft

	// The file's own tokens, then those of tokenizer_config.json, which may change their flags.
	byID := map[int]AddedToken{}
	for i, tok := range p.added {
		byID[p.addedIDs[i]] = tok
	}
	if !bert {
		t.added.add(p.added, t.model.vocab(), t.normalizer)
	}
	if cfg.hasAdded {
		byID = cfg.added
	}
	var add []AddedToken
	named := map[string]bool{}
	for role, tok := range cfg.roles {
		named[tok.Content] = true
		t.special[role] = tok.Content
	}
	known := func(content string) bool {
		_, ok := t.added.ids[content]
		return ok || slices.ContainsFunc(add, func(a AddedToken) bool { return a.Content == content })
	}
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		tok := byID[id]
		tok.Special = tok.Special || named[tok.Content]
		add = append(add, tok)
	}
	for _, role := range roles {
		if tok, ok := cfg.roles[role]; ok && !known(tok.Content) {
			add = append(add, tok)
		}
	}
	for _, tok := range cfg.extra {
		if !known(tok.Content) {
			add = append(add, tok)
		}
	}
	t.added.add(add, t.model.vocab(), t.normalizer)
	if bert {
		cls, clsID := t.roleOr("cls_token", 2)
		sep, sepID := t.roleOr("sep_token", 3)
		t.post = bertTemplate(cls, clsID, sep, sepID)
	}
	if err := t.finish(); err != nil {
		return nil, err
	}
	t.setPad(p.pad)
	return t, nil
}

// roleOr is a special token and its id, else BERT's name and the given id.
func (t *Tokenizer) roleOr(role string, id int) (string, int) {
	if tok, id, ok := t.SpecialToken(role); ok {
		return tok, id
	}
	return bertRoles[role], id
}

func (c *config) isBert() bool {
	if c.class != "" {
		return slices.Contains(bertClasses, strings.TrimSuffix(c.class, "Fast"))
	}
	return slices.Contains(bertTypes, c.modelType)
}

// readConfig reads the folder's three JSON files; each may be missing.
func readConfig(dir string) (*config, error) {
	c := &config{
		lowercase: true, chinese: true, roles: map[string]AddedToken{}, noRole: map[string]bool{},
		added: map[int]AddedToken{},
	}
	for _, f := range []struct {
		name string
		read func(*config, section) error
	}{
		{"config.json", (*config).readModel},
		{"tokenizer_config.json", (*config).readTokenizer},
		{"special_tokens_map.json", (*config).readSpecial},
	} {
		path := filepath.Join(dir, f.name)
		data, err := readFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		v, err := strictjson.Parse(data, strictjson.Options{AllowNaN: true})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", fileerr.Plain(path), err)
		}
		s, err := asSection(v, f.name)
		if err == nil {
			err = f.read(c, s)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", fileerr.Plain(path), err)
		}
	}
	return c, nil
}

func (c *config) readModel(s section) error {
	return s.optional(map[string]any{"tokenizer_class": &c.class, "model_type": &c.modelType})
}

func (c *config) readTokenizer(s section) error {
	var trunc, pad string
	err := s.optional(map[string]any{
		"tokenizer_class": &c.class, "do_lower_case": &c.lowercase, "strip_accents": &c.stripAccents,
		"tokenize_chinese_chars": &c.chinese, "clean_up_tokenization_spaces": &c.cleanUp,
		"truncation_side": &trunc, "padding_side": &pad,
	})
	if err != nil {
		return err
	}
	if c.truncateLeft, err = isLeft("truncation_side", trunc); err != nil {
		return err
	}
	if c.padLeft, err = isLeft("padding_side", pad); err != nil {
		return err
	}
	if v, ok := s.Get("model_max_length"); ok && !v.IsNull() {
		n, err := v.AsFloat() // 1e30, in digits, is transformers' «no limit»
		if err != nil || n != math.Trunc(n) || n < 0 {
			return invalid("model_max_length: not a length")
		}
		if n <= math.MaxInt32 {
			c.maxLength = int(n)
		}
	}
	if v, ok := s.Get("added_tokens_decoder"); ok && !v.IsNull() {
		o, err := asSection(v, "added_tokens_decoder")
		if err != nil {
			return err
		}
		c.hasAdded = true
		for key, v := range o.All() {
			id, err := strictjson.Number(key).Int64()
			if err != nil || id < 0 || id > math.MaxInt32 {
				return invalid("added_tokens_decoder: %q is not an id", clip(key))
			}
			tok, _, err := parseAddedToken(v)
			if err != nil {
				return err
			}
			c.added[int(id)] = tok
		}
	}
	return c.readTokens(s)
}

func (c *config) readSpecial(s section) error {
	if c.hasAdded {
		return nil // transformers reads this older file only where the newer list is missing
	}
	return c.readTokens(s)
}

// readTokens reads the roles and the further special tokens.
func (c *config) readTokens(s section) error {
	for _, role := range roles {
		v, ok := s.Get(role)
		if !ok {
			continue
		}
		if c.noRole[role] = v.IsNull(); v.IsNull() {
			delete(c.roles, role)
			continue
		}
		tok, err := specialToken(v)
		if err != nil {
			return fmt.Errorf("%s: %w", role, err)
		}
		c.roles[role] = tok
	}
	for _, name := range []string{"extra_special_tokens", "additional_special_tokens"} {
		v, ok := s.Get(name)
		if !ok || v.Kind() != strictjson.KindArray {
			continue
		}
		c.extra = nil
		err := s.each(name, func(v strictjson.Value) error {
			tok, err := specialToken(v)
			c.extra = append(c.extra, tok)
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		break
	}
	return nil
}

// specialToken reads "[CLS]" or {"content": "[CLS]", …}.
func specialToken(v strictjson.Value) (AddedToken, error) {
	if s, err := v.AsString(); err == nil {
		return AddedToken{Content: s, Special: true}, nil
	}
	t, _, err := parseAddedToken(v)
	t.Special = true
	return t, err
}

func isLeft(name, side string) (bool, error) {
	switch side {
	case "left":
		return true, nil
	case "", "right":
		return false, nil
	}
	return false, invalid("%s: expected \"left\" or \"right\", got %q", name, clip(side))
}

// optional is fields for members that may be absent or null.
func (s section) optional(into map[string]any) error {
	maps.DeleteFunc(into, func(name string, _ any) bool {
		v, ok := s.Get(name)
		return !ok || v.IsNull()
	})
	return s.fields(into)
}
