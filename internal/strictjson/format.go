package strictjson

import (
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Format is how a value is written. The zero value is what Python's json.dumps writes by default:
// one line, ", " and ": " as separators, all but ASCII escaped.
type Format struct {
	Indent   int  // spaces a level; 0: one line
	SortKeys bool // by code point
	UTF8     bool // don't escape what is not ASCII (ensure_ascii=False)
}

// Append writes v at the end of dst.
func (f Format) Append(dst []byte, v Value) []byte { return f.value(dst, v, 1) }

func (f Format) value(dst []byte, v Value, level int) []byte {
	switch v.kind {
	case KindString:
		return AppendString(dst, v.text, !f.UTF8)
	case KindBool, KindNumber:
		return append(dst, v.text...)
	case KindArray:
		dst = append(dst, '[')
		for i, item := range v.items {
			dst = f.separate(dst, i, level)
			dst = f.value(dst, item, level+1)
		}
		return append(f.closing(dst, len(v.items), level), ']')
	case KindObject:
		order := make([]int, v.obj.Len())
		for i := range order {
			order[i] = i
		}
		names := v.obj.set.names
		if f.SortKeys {
			slices.SortFunc(order, func(a, b int) int { return strings.Compare(names[a], names[b]) })
		}
		dst = append(dst, '{')
		for n, i := range order {
			dst = f.separate(dst, n, level)
			dst = append(AppendString(dst, names[i], !f.UTF8), ": "...)
			dst = f.value(dst, v.obj.values[i], level+1)
		}
		return append(f.closing(dst, len(order), level), '}')
	}
	return append(dst, "null"...)
}

func (f Format) separate(dst []byte, i, level int) []byte {
	if i > 0 {
		dst = append(dst, ',')
	}
	if f.Indent > 0 {
		return f.line(dst, level)
	}
	if i > 0 {
		dst = append(dst, ' ')
	}
	return dst
}

func (f Format) closing(dst []byte, n, level int) []byte {
	if f.Indent > 0 && n > 0 {
		return f.line(dst, level-1)
	}
	return dst
}

func (f Format) line(dst []byte, level int) []byte {
	dst = append(dst, '\n')
	return append(dst, strings.Repeat(" ", f.Indent*level)...)
}

// AppendString writes s as a JSON string at the end of dst, with what is not ASCII escaped if ascii.
func AppendString(dst []byte, s string, ascii bool) []byte {
	const hex = "0123456789abcdef"
	escape := func(r rune) {
		dst = append(dst, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
	}
	dst = append(dst, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r == '\n':
			dst = append(dst, `\n`...)
		case r == '\r':
			dst = append(dst, `\r`...)
		case r == '\t':
			dst = append(dst, `\t`...)
		case r == '\b':
			dst = append(dst, `\b`...)
		case r == '\f':
			dst = append(dst, `\f`...)
		case r < 0x20 || ascii && r >= 0x7f && r < 0x10000:
			escape(r)
		case ascii && r >= 0x10000:
			hi, lo := utf16.EncodeRune(r)
			escape(hi)
			escape(lo)
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}
