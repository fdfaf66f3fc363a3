package pickle

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"
)

// Limits of what is written: those of what is read.
const maxWriteDepth = 1000

var maxWriteBytes = 256 << 20 // of data.pkl; smaller in tests

// batchSize is how many items Python's pickler lets one opcode add to a list or dict.
const batchSize = 1000

// pickler writes pickles of protocol 2 with the opcodes in the order of Python's pickler, and calls alone that
// torch.load(weights_only=True) makes.
type pickler struct {
	buf      []byte
	memo     map[any]uint32 // what can be named again: a string, a pointer, a tuple, a global
	next     uint32
	depth    int
	storages []*Storage // by key
	keys     map[*Storage]storageKey
}

type storageKey struct {
	key   string
	class string // of which elements it is said to be
}

type (
	global   string
	tupleRef struct { // tuples are slices: the same one is the same memory
		first *Value
		n     int
	}
)

// dump gives the pickle of v, and the storages that it names.
func dump(v Value) ([]byte, []*Storage, error) {
	p := &pickler{memo: map[any]uint32{}, keys: map[*Storage]storageKey{}, buf: []byte{opProto, 2}}
	if err := p.save(v); err != nil {
		return nil, nil, err
	}
	return append(p.buf, opStop), p.storages, nil
}

func (p *pickler) op(code byte, rest ...byte) { p.buf = append(append(p.buf, code), rest...) }

// again names what was written before.
func (p *pickler) again(key any) bool {
	n, ok := p.memo[key]
	switch {
	case !ok:
	case n < 256:
		p.op(opBinGet, byte(n))
	default:
		p.op(opLongBinGet)
		p.buf = le.AppendUint32(p.buf, n)
	}
	return ok
}

// put gives what was just written a name. key is nil where nothing will ask for it: Python gives it one all the same.
func (p *pickler) put(key any) {
	if key != nil {
		p.memo[key] = p.next
	}
	if p.next < 256 {
		p.op(opBinPut, byte(p.next))
	} else {
		p.op(opLongBinPut)
		p.buf = le.AppendUint32(p.buf, p.next)
	}
	p.next++
}

func (p *pickler) save(v Value) error {
	if p.depth++; p.depth > maxWriteDepth {
		return &Error{Class: ErrLimit, Detail: "depth of the value", Expected: fmt.Sprintf("at most %d; a value that contains itself can't be written", maxWriteDepth)}
	}
	defer func() { p.depth-- }()
	if len(p.buf) > maxWriteBytes {
		return &Error{Class: ErrLimit, Detail: "pickle", Expected: fmt.Sprintf("at most %d bytes", maxWriteBytes)}
	}
	switch v := v.(type) {
	case nil:
		p.op(opNone)
	case bool:
		if v {
			p.op(opNewTrue)
		} else {
			p.op(opNewFalse)
		}
	case int64:
		p.int(v)
	case *big.Int:
		return p.bigInt(v)
	case float64:
		p.op(opBinFloat)
		p.buf = binary.BigEndian.AppendUint64(p.buf, math.Float64bits(v))
	case complex128:
		return p.call("__builtin__ complex", nil, real(v), imag(v))
	case string:
		return p.string(v)
	case []byte:
		return p.bytes(v)
	case Tuple:
		return p.tuple(v)
	case Size:
		list := make(Tuple, len(v))
		for i, n := range v {
			list[i] = n
		}
		return p.call("torch Size", nil, list)
	case DType:
		if _, ok := dtypes[v]; !ok {
			return &Error{Class: ErrUnsupported, Detail: "dtype", Actual: fmt.Sprintf("%.40q", string(v))}
		}
		p.global(global("torch " + v))
	case Device:
		kind, index, ok := strings.Cut(string(v), ":")
		if n, err := strconv.ParseUint(index, 10, 31); ok && err == nil {
			return p.call("torch device", nil, kind, int64(n))
		}
		if ok || kind == "" {
			return &Error{Class: ErrBadValue, Detail: "device", Actual: fmt.Sprintf("%.40q", string(v))}
		}
		return p.call("torch device", nil, kind)
	case *List:
		return p.list(v)
	case *Dict:
		return p.dict(v)
	case *Set:
		return p.set(v)
	case *Tensor:
		return p.tensor(v)
	default:
		return &Error{Class: ErrUnsupported, Detail: "a value that torch.load(weights_only=True) would refuse", Actual: kindOf(v)}
	}
	return nil
}

func (p *pickler) int(v int64) {
	switch {
	case v >= 0 && v < 1<<8:
		p.op(opBinInt1, byte(v))
	case v >= 0 && v < 1<<16:
		p.op(opBinInt2, byte(v), byte(v>>8))
	case v == int64(int32(v)):
		p.op(opBinInt)
		p.buf = le.AppendUint32(p.buf, uint32(v))
	default:
		_ = p.bigInt(big.NewInt(v)) // 8 bytes are never too many
	}
}

// bigInt writes a number in two's complement, least byte first, in as few bytes as it takes.
func (p *pickler) bigInt(v *big.Int) error {
	n := v.BitLen()/8 + 1
	two := new(big.Int).Set(v)
	if v.Sign() < 0 {
		if m := new(big.Int).Not(v); m.BitLen()%8 == 0 || m.BitLen() < v.BitLen() { // -128 is one byte
			n = m.BitLen()/8 + 1
		}
		two.Add(two, new(big.Int).Lsh(big.NewInt(1), uint(8*n)))
	}
	if n > 255 {
		return &Error{Class: ErrUnsupported, Detail: "an integer that torch.load(weights_only=True) would refuse", Expected: "at most 255 bytes", Actual: fmt.Sprint(n)}
	}
	digits := two.FillBytes(make([]byte, n))
	slices.Reverse(digits)
	p.op(opLong1, append([]byte{byte(n)}, digits...)...)
	return nil
}

func (p *pickler) string(v string) error {
	switch {
	case p.again(v):
		return nil
	case !utf8.ValidString(v):
		return &Error{Class: ErrBadValue, Detail: "a string that is not UTF-8", Actual: fmt.Sprintf("%.80q", v)}
	case uint64(len(v)) > math.MaxUint32:
		return &Error{Class: ErrLimit, Detail: "string", Actual: fmt.Sprintf("%d bytes", len(v))}
	}
	p.text(v, v)
	return nil
}

// text writes a string that is an object of its own in PyTorch, although there may be others that are equal; key is as in put.
func (p *pickler) text(v string, key any) {
	p.op(opBinUnicode)
	p.buf = append(le.AppendUint32(p.buf, uint32(len(v))), v...)
	p.put(key)
}

// bytes writes bytes, which protocol 2 has not, as Python does: as characters to be encoded. (For none Python calls
// bytes, which weights_only refuses.)
func (p *pickler) bytes(v []byte) error {
	var text strings.Builder
	for _, b := range v {
		text.WriteRune(rune(b))
	}
	return p.call("_codecs encode", nil, text.String(), "latin1")
}

func (p *pickler) global(name global) {
	if p.again(name) {
		return
	}
	module, attr, _ := strings.Cut(string(name), " ")
	p.op(opGlobal)
	p.buf = append(p.buf, module+"\n"+attr+"\n"...)
	p.put(name)
}

// call writes a function and its arguments. key is under what the result is found again, nil if it is not.
func (p *pickler) call(name global, key any, args ...Value) error {
	p.global(name)
	if err := p.tuple(args); err != nil {
		return err
	}
	p.op(opReduce)
	p.put(key)
	return nil
}

func (p *pickler) tuple(v Tuple) error {
	if len(v) == 0 {
		p.op(opEmptyTuple)
		return nil
	}
	ref := tupleRef{unsafe.SliceData(v), len(v)}
	if p.again(ref) {
		return nil
	}
	if len(v) > 3 {
		p.op(opMark)
	}
	for _, item := range v {
		if err := p.save(item); err != nil {
			return err
		}
	}
	p.op([...]byte{1: opTuple1, 2: opTuple2, 3: opTuple3, 4: opTuple}[min(len(v), 4)])
	p.put(ref)
	return nil
}

func (p *pickler) list(v *List) error {
	if p.again(v) {
		return nil
	}
	p.op(opEmptyList)
	p.put(v)
	return p.batches(len(v.Items), true, opAppend, opAppends, func(i int) error { return p.save(v.Items[i]) })
}

// batches writes n items, each of which item writes: one with the first opcode, more with the second. Python counts the items of
// exact lists and dicts beforehand, so that the last of many comes as many do; of subclasses it doesn't.
func (p *pickler) batches(n int, exact bool, one, many byte, item func(i int) error) error {
	for i := 0; i < n; {
		end := min(i+batchSize, n)
		code := one
		if end-i > 1 || exact && n > 1 {
			p.op(opMark)
			code = many
		}
		for ; i < end; i++ {
			if err := item(i); err != nil {
				return err
			}
		}
		p.op(code)
	}
	return nil
}

func (p *pickler) items(d *Dict) error {
	exact := d.Class != OrderedDict
	err := p.batches(len(d.items), exact, opSetItem, opSetItems, func(i int) error {
		it := d.items[i]
		if err := p.save(it.Key); err != nil {
			return err
		}
		err := p.save(it.Value)
		if e, ok := err.(*Error); ok && e.Tensor == "" {
			e.Tensor = fmt.Sprint(it.Key)
		} else if name, isString := it.Key.(string); ok && isString {
			e.Tensor = name + "." + e.Tensor
		}
		return err
	})
	if exact && len(d.items) > 0 && len(d.items)%batchSize == 0 { // Python finds out that there is nothing more
		p.op(opMark, opSetItems)
	}
	return err
}

func (p *pickler) dict(v *Dict) error {
	if p.again(v) {
		return nil
	}
	switch v.Class {
	case OrderedDict:
		p.global("collections OrderedDict")
		p.op(opEmptyTuple, opReduce)
		p.put(v)
	case Counter: // made of a dict
		p.global("collections Counter")
		p.op(opEmptyDict)
		p.put(nil)
		if err := p.items(v); err != nil {
			return err
		}
		p.op(opTuple1)
		p.put(nil)
		p.op(opReduce)
		p.put(v)
		return nil
	default:
		p.op(opEmptyDict)
		p.put(v)
	}
	if err := p.items(v); err != nil {
		return err
	}
	if v.State == nil {
		return nil
	}
	if v.Class != OrderedDict {
		return &Error{Class: ErrUnsupported, Detail: "attributes of a dict that is no OrderedDict"}
	}
	if err := p.save(v.State); err != nil {
		return err
	}
	p.op(opBuild)
	return nil
}

func (p *pickler) set(v *Set) error {
	if p.again(v) {
		return nil
	}
	if v.Frozen {
		return &Error{Class: ErrUnsupported, Detail: "a value that torch.load(weights_only=True) would refuse", Actual: "frozenset"}
	}
	return p.call("__builtin__ set", v, &List{Items: slices.Collect(v.Items())})
}

// The opcodes of protocol 2 that are written.
const (
	opMark       = '('
	opStop       = '.'
	opBinInt     = 'J'
	opBinInt1    = 'K'
	opBinInt2    = 'M'
	opNone       = 'N'
	opBinPersID  = 'Q'
	opReduce     = 'R'
	opBinUnicode = 'X'
	opAppend     = 'a'
	opBuild      = 'b'
	opGlobal     = 'c'
	opAppends    = 'e'
	opBinFloat   = 'G'
	opBinGet     = 'h'
	opLongBinGet = 'j'
	opBinPut     = 'q'
	opLongBinPut = 'r'
	opSetItem    = 's'
	opTuple      = 't'
	opSetItems   = 'u'
	opEmptyTuple = ')'
	opEmptyList  = ']'
	opEmptyDict  = '}'
	opProto      = 0x80
	opTuple1     = 0x85
	opTuple2     = 0x86
	opTuple3     = 0x87
	opNewTrue    = 0x88
	opNewFalse   = 0x89
	opLong1      = 0x8a
)
