package tokenizer

import (
	"fmt"
	"strconv"

	"github.com/torchgo/torchgo/internal/strictjson"
)

// EncodeJSON encodes a JSON string, or [text, pair], and appends to dst the object
// {"ids","tokens","offsets","type_ids","special_tokens_mask"}, a line of `torchgo tokenize --jsonl`.
func (t *Tokenizer) EncodeJSON(dst, line []byte, o EncodeOptions) ([]byte, error) {
	v, err := strictjson.Parse(line, strictjson.Options{})
	if err != nil {
		return dst, err
	}
	var e Encoding
	if v.Kind() == strictjson.KindArray {
		pair, err := v.AsTuple(2)
		if err != nil {
			return dst, err
		}
		a, err := pair[0].AsString()
		if err != nil {
			return dst, err
		}
		b, err := pair[1].AsString()
		if err != nil {
			return dst, err
		}
		if e, err = t.EncodePair(a, b, o); err != nil {
			return dst, err
		}
	} else {
		s, err := v.AsString()
		if err != nil {
			return dst, fmt.Errorf("expected a string or [text, pair]: %w", err)
		}
		if e, err = t.Encode(s, o); err != nil {
			return dst, err
		}
	}
	return e.AppendJSON(dst), nil
}

// DecodeJSON decodes a JSON array of ids and appends {"text": …} to dst.
func (t *Tokenizer) DecodeJSON(dst, line []byte, skipSpecialTokens bool) ([]byte, error) {
	v, err := strictjson.Parse(line, strictjson.Options{})
	if err != nil {
		return dst, err
	}
	items, err := v.AsArray()
	if err != nil {
		return dst, err
	}
	ids := make([]int, len(items))
	for i, item := range items {
		if ids[i], err = asCount(item); err != nil {
			return dst, fmt.Errorf("id %d: %w", i, err)
		}
	}
	dst = append(dst, `{"text":`...)
	dst = strictjson.AppendString(dst, t.Decode(ids, skipSpecialTokens), false)
	return append(dst, '}'), nil
}

// AppendJSON appends e as a line of `torchgo tokenize --jsonl`.
func (e *Encoding) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"ids":`...)
	dst = appendInts(dst, e.IDs)
	dst = append(dst, `,"tokens":[`...)
	for i, tok := range e.Tokens {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strictjson.AppendString(dst, tok, false)
	}
	dst = append(dst, `],"offsets":[`...)
	for i, o := range e.Offsets {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendInts(dst, o[:])
	}
	dst = append(dst, `],"type_ids":`...)
	dst = appendInts(dst, e.TypeIDs)
	dst = append(dst, `,"special_tokens_mask":`...)
	dst = appendInts(dst, e.SpecialTokensMask)
	return append(dst, '}')
}

func appendInts(dst []byte, values []int) []byte {
	dst = append(dst, '[')
	for i, v := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendInt(dst, int64(v), 10)
	}
	return append(dst, ']')
}
