package tokenizer

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/strictjson"
)

// small is a valid file; the cases below replace one part of it.
const small = `{"version": "1.0", "truncation": null, "padding": null,
"added_tokens": [{"id": 1, "content": "[CLS]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
"normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
"pre_tokenizer": {"type": "BertPreTokenizer"},
"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
 "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]}}},
"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
"model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "[CLS]": 1, "a": 2, "##b": 3}}}`

func TestSmallFile(t *testing.T) {
	tok, err := Parse([]byte(small))
	require.NoError(t, err)
	e, err := tok.Encode("Ab c", EncodeOptions{})
	require.NoError(t, err)
	require.Equal(t, []int{1, 2, 3, 0}, e.IDs)
	require.Equal(t, []string{"[CLS]", "a", "##b", "[UNK]"}, e.Tokens)
	require.Equal(t, [][2]int{{0, 0}, {0, 1}, {1, 2}, {3, 4}}, e.Offsets)
	require.Equal(t, "[CLS] ab [UNK]", tok.Decode([]int{1, 2, 3, 0, 99, -1}, false))
	id, ok := tok.TokenToID("##b")
	require.True(t, ok)
	require.Equal(t, 3, id)
	_, ok = tok.TokenToID("zz")
	require.False(t, ok)
	for _, id := range []int{-1, 4, 1 << 40} {
		_, ok = tok.IDToToken(id)
		require.False(t, ok)
	}
	require.Equal(t, 1, tok.NumSpecialTokens(false))
	require.Equal(t, 0, tok.NumSpecialTokens(true))
	_, ok = tok.PadID()
	require.False(t, ok)
}

func TestHostileFiles(t *testing.T) {
	for _, c := range []struct {
		old, new string
		class    error
		message  string
	}{
		{`"##b": 3`, `"##b": 2`, ErrBadConfig, `tokens "##b" and "a" have the same id 2`},
		{`"##b": 3`, `"##b": -3`, ErrBadConfig, `token "##b" has id -3`},
		{`"##b": 3`, `"##b": 4294967299`, ErrBadConfig, `token "##b" has id 4294967299`},
		{`"##b": 3`, `"##b": 99999999999999999999`, ErrBadConfig, `token "##b" has id 9999`},
		{`"##b": 3`, `"##b": 3.5`, ErrBadConfig, `token "##b" has id 3.5`},
		{`"##b": 3`, `"##b": 1000000`, ErrBadConfig, `id 1000000, out of range for 4 tokens`},
		{`"##b": 3`, `"##b": "3"`, strictjson.ErrType, `model: vocab: "##b"`},
		{`"##b": 3`, `"##b": 3, "a": 4`, strictjson.ErrDuplicate, `"a"`},
		{`"vocab": {`, `"vocab": [["a", 1.0]], "x": {`, ErrBadConfig, `no "vocab" object`},
		{`"type": "WordPiece", "unk`, `"type": "BPE", "unk`, ErrUnsupported, `model: not supported: type "BPE"`},
		{`"unk_token": "[UNK]", `, ``, ErrBadConfig, `no "unk_token"`},
		{`"max_input_chars_per_word": 100`, `"max_input_chars_per_word": -1`, ErrBadConfig, `max_input_chars_per_word: `},
		{`BertNormalizer`, `Precompiled`, ErrUnsupported, `normalizer: not supported: type "Precompiled"`},
		{`"lowercase": true`, `"lowercase": 1`, strictjson.ErrType, `normalizer: lowercase`},
		{`"lowercase": true`, `"lowercase": true, "lowercase": false`, strictjson.ErrDuplicate, `lowercase`},
		{`BertPreTokenizer`, `ByteLevel`, ErrUnsupported, `pre_tokenizer: not supported: type "ByteLevel"`},
		{`TemplateProcessing`, `RobertaProcessing`, ErrUnsupported, `post_processor: not supported`},
		{`"decoder": {"type": "WordPiece"`, `"decoder": {"type": "CTC"`, ErrUnsupported, `decoder: not supported: type "CTC"`},
		{`"ids": [1]`, `"ids": [1, 2]`, ErrBadConfig, `2 ids but 1 tokens`},
		{`"ids": [1]`, `"ids": [77]`, ErrBadConfig, `no token has id 77`},
		{`"ids": [1]`, `"ids": [-1]`, ErrBadConfig, `-1 is not in`},
		{`"single": [{"SpecialToken": {"id": "[CLS]"`, `"single": [{"SpecialToken": {"id": "[SEP]"`, ErrBadConfig, `special token "[SEP]"`},
		{`"single": [{`, `"single": [{"Sequence": {"id": "B", "type_id": 0}}, {`, ErrBadConfig, `sequence B`},
		{`"single": [{`, `"single": [{"Sequence": {"id": "C", "type_id": 0}}, {`, ErrBadConfig, `unknown piece Sequence "C"`},
		{`"single": [{`, `"single": [` + strings.Repeat(`{"Sequence": {"id": "A", "type_id": 0}},`, 100) + `{`, ErrBadConfig, `more than 64`},
		{`"normalizer": {`, `"normalizer": {"type": "Sequence", "normalizers": [` + strings.Repeat(`{"type": "NFD"},`, 99) + `{"type": "NFD"}]}, "n": {`, ErrBadConfig, `more than 64`},
		{`"id": 1, "content"`, `"id": -1, "content"`, ErrBadConfig, `-1 is not in`},
		{`"id": 1, "content"`, `"id": 2000000000, "content"`, ErrBadConfig, `out of range`},
		{`"content": "[CLS]"`, `"content": 7`, strictjson.ErrType, `content`},
		{`"added_tokens": [`, `"added_tokens": [{"id": 1, "content": "x"}, `, ErrBadConfig, `have the same id 1`},
		{`"added_tokens": [`, `"added_tokens": [{"id": 4, "content": "X"}, {"id": 5, "content": "x"}, `, ErrBadConfig, `same text`},
		{`"added_tokens": [`, `"added_tokens": [{"id": 4, "content": "\u0301"}, `, ErrBadConfig, `empty after normalization`},
		{`"added_tokens": [`, `"added_tokens": 3, "other": [`, strictjson.ErrType, `added_tokens`},
		{`"version": "1.0"`, `"version": "2.0"`, ErrBadConfig, `version`},
		{`"padding": null`, `"padding": {"strategy": {"Fixed": 999999999}, "direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}`, ErrBadConfig, `fixed length`},
		{`"padding": null`, `"padding": {"strategy": "BatchLongest", "pad_to_multiple_of": 2000000000, "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}`, ErrBadConfig, `multiple of`},
		{`"padding": null`, `"padding": {"strategy": "Shortest", "direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}`, ErrBadConfig, `strategy`},
		{`"truncation": null`, `"truncation": {"max_length": 8, "strategy": "Best", "stride": 0}`, ErrBadConfig, `strategy`},
		{`"truncation": null`, `"truncation": {"max_length": 8, "strategy": "OnlyFirst", "stride": 0, "direction": "Up"}`, ErrBadConfig, `direction`},
		{`"a": 2`, "\"\xff\": 2", strictjson.ErrSyntax, `UTF-8`},
		{`"a": 2`, `"\ud800": 2`, strictjson.ErrSyntax, ``},
		{`"##b": 3}}}`, `"##b": 3}}} {}`, strictjson.ErrSyntax, ``},
		{`"##b": 3}}}`, `"##b": 3}}`, strictjson.ErrSyntax, ``},
		{`"padding": null`, `"padding": ` + strings.Repeat("[", 100000), strictjson.ErrLimit, ``},
		{`"model":`, `"modul":`, ErrBadConfig, `no "model"`},
	} {
		require.Equal(t, 1, strings.Count(small, c.old), c.old)
		_, err := Parse([]byte(strings.Replace(small, c.old, c.new, 1)))
		require.ErrorIs(t, err, c.class, "%s → %.80s", c.old, c.new)
		require.ErrorContains(t, err, c.message)
		require.NotContains(t, err.Error(), "\n")
		require.Less(t, len(err.Error()), 400)
	}
	for _, s := range []string{"", "null", "[]", "3", `"x"`, "{}"} {
		_, err := Parse([]byte(s))
		require.Error(t, err, s)
	}
}

// A missing unknown token is an error where a text needs it, not before, as in the reference.
func TestMissingUnknownToken(t *testing.T) {
	tok, err := Parse([]byte(strings.Replace(small, `"unk_token": "[UNK]"`, `"unk_token": "<none>"`, 1)))
	require.NoError(t, err)
	_, err = tok.Encode("ab", EncodeOptions{})
	require.NoError(t, err)
	_, err = tok.Encode("ab x", EncodeOptions{})
	require.ErrorContains(t, err, `"<none>"`)
	_, err = tok.EncodeBatch([]string{"a", "x"}, EncodeOptions{})
	require.ErrorContains(t, err, "text 1")
}

func TestHostileFolders(t *testing.T) {
	write := func(files map[string]string) string {
		dir := t.TempDir()
		for name, s := range files {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(s), 0o600))
		}
		return dir
	}
	for name, c := range map[string]struct {
		files   map[string]string
		message string
	}{
		"empty":       {nil, "neither tokenizer.json nor vocab.txt"},
		"vocab":       {map[string]string{"vocab.txt": "a\n\xff\n"}, "vocab.txt: bad config: not UTF-8"},
		"side":        {map[string]string{"vocab.txt": "a\n", "tokenizer_config.json": `{"padding_side": "top"}`}, `tokenizer_config.json: bad config: padding_side`},
		"type":        {map[string]string{"vocab.txt": "a\n", "tokenizer_config.json": `{"do_lower_case": "yes"}`}, `do_lower_case`},
		"max":         {map[string]string{"vocab.txt": "a\n", "tokenizer_config.json": `{"model_max_length": -1}`}, `model_max_length`},
		"decoder id":  {map[string]string{"vocab.txt": "a\n", "tokenizer_config.json": `{"added_tokens_decoder": {"x": {"content": "y"}}}`}, `"x" is not an id`},
		"not JSON":    {map[string]string{"vocab.txt": "a\n", "config.json": `{`}, "config.json: invalid JSON"},
		"not object":  {map[string]string{"vocab.txt": "a\n", "special_tokens_map.json": `[]`}, "special_tokens_map.json"},
		"token":       {map[string]string{"vocab.txt": "a\n", "special_tokens_map.json": `{"cls_token": 3}`}, "cls_token"},
		"unsupported": {map[string]string{"tokenizer.json": strings.Replace(small, `"type": "WordPiece", "unk`, `"type": "Unigram", "unk`, 1)}, `tokenizer.json: model: not supported: type "Unigram"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := FromPretrained(write(c.files))
			require.ErrorContains(t, err, c.message)
			require.NotContains(t, err.Error(), "\n")
		})
	}
	t.Run("fifo", func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "tokenizer.json"), 0o600))
		_, err := FromPretrained(dir)
		require.ErrorContains(t, err, "not a regular file")
	})
	t.Run("large", func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "tokenizer.json")
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		require.NoError(t, os.Truncate(path, maxFile+1))
		_, err := Open(path)
		require.ErrorContains(t, err, "resource limit exceeded")
	})
	t.Run("missing", func(t *testing.T) {
		_, err := Open(filepath.Join(t.TempDir(), "tokenizer.json"))
		require.ErrorIs(t, err, os.ErrNotExist)
	})
}

func TestOptionErrors(t *testing.T) {
	tok, _ := minilm(t)
	_, err := tok.Encode("a b c", EncodeOptions{MaxLength: 3, Truncation: OnlySecond})
	require.ErrorIs(t, err, ErrNoPair)
	_, err = tok.Encode("a b c", EncodeOptions{MaxLength: 1})
	require.ErrorContains(t, err, "max length 1 is less than the 2 special tokens")
	_, err = tok.Encode("a", EncodeOptions{MaxLength: -1})
	require.ErrorContains(t, err, "negative")
	e, err := tok.Encode("a b c", EncodeOptions{MaxLength: 2})
	require.NoError(t, err)
	require.Equal(t, []int{101, 102}, e.IDs)
	e, err = tok.Encode(strings.Repeat("a ", 600), EncodeOptions{Truncation: LongestFirst})
	require.NoError(t, err)
	require.Len(t, e.IDs, 512)

	bare, err := Parse([]byte(small))
	require.NoError(t, err)
	_, err = bare.Encode("a", EncodeOptions{Padding: PadLongest})
	require.ErrorContains(t, err, "no padding token")
	_, err = bare.Encode("a", EncodeOptions{Padding: PadMaxLength})
	require.ErrorContains(t, err, "no max length")
}

// Invalid UTF-8 counts as U+FFFD, a byte each.
func TestInvalidUTF8(t *testing.T) {
	tok, _ := minilm(t)
	e, err := tok.Encode("a\xff\xfe b", EncodeOptions{NoSpecialTokens: true})
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, e.Tokens)
	require.Equal(t, [][2]int{{0, 1}, {4, 5}}, e.Offsets)
}

// Long runs of white space beside a token that strips it stay cheap.
func TestStripRuns(t *testing.T) {
	tok, err := Parse([]byte(strings.Replace(small, `"added_tokens": [`,
		`"added_tokens": [{"id": 4, "content": " ", "rstrip": true, "normalized": false}, {"id": 5, "content": "\t", "lstrip": true, "rstrip": true, "normalized": true}, `, 1)))
	require.NoError(t, err)
	for _, s := range []string{" ", "\t", " \t", "\t\n"} {
		_, err = tok.Encode(strings.Repeat(s, 500_000), EncodeOptions{})
		require.NoError(t, err)
	}
}

func TestConcurrentUse(t *testing.T) {
	tok, dir := minilm(t)
	all := rows[sentenceRow](t, dir, "sentences.jsonl")[:200]
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for g := range 8 {
		wg.Go(func() {
			for i := range all {
				row := all[(i*7+g)%len(all)]
				e, err := tok.Encode(row.Text, EncodeOptions{})
				if err != nil || fmt.Sprint(e.IDs) != fmt.Sprint(row.With.IDs) || tok.Decode(e.IDs, true) != row.Skipped {
					errs <- fmt.Errorf("%q: %v %v", row.Text, e.IDs, err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
}
