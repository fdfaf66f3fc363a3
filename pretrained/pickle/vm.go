package pickle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits of what is accepted.
const (
	MaxPickleBytes = 256 << 20 // of one pickle
	MaxTensors     = 1_000_000
	MaxDepth       = 1_000    // of lists in dicts in tuples …
	MaxValues      = 16 << 20 // on the stack, in the memo, and in the object, one that is at two places counted twice
)

// machine interprets a pickle.
type machine struct {
	src    *source
	op     int64 // where the opcode is
	proto  byte
	stack  []Value
	marks  []int // where in the stack
	memo   []Value
	sparse map[uint32]Value // memo entries beyond those that are numbered one by one
	work   int64            // what calls and keys may still cost; opcodes are bounded by the bytes that they are

	forbidden  *Error                        // a name that is not on the list is on the stack
	cut        error                         // class of an end without STOP
	keep       bool                          // names that aren't on the list become Opaque values
	persistent func(id Value) (Value, error) // what BINPERSID gives; nil: no pickle of this kind has one
	tensor     func(t *Tensor) error         // registers a tensor; its errors lack the offset
}

// run interprets one pickle, from PROTO to STOP.
func (m *machine) run() (Value, error) {
	m.stack, m.marks, m.memo, m.sparse, m.proto = m.stack[:0], m.marks[:0], nil, nil, 0
	start := m.src.pos
	if limit := start + MaxPickleBytes; m.src.end > limit {
		end := m.src.end
		defer func() { m.src.end = end }()
		m.src.end = limit
	}
	m.work = 4*(m.src.end-start) + windowBytes
	for {
		m.op = m.src.pos
		if m.op == m.src.end {
			if m.op-start == MaxPickleBytes {
				return nil, &Error{Class: ErrLimit, Offset: m.op, Expected: fmt.Sprintf("a pickle of at most %d bytes", MaxPickleBytes)}
			}
			return nil, &Error{Class: m.cut, Offset: m.op, Detail: "the pickle ends without STOP"}
		}
		op, err := m.src.byte("opcode")
		if err != nil {
			return nil, err
		}
		do := opcodes[op]
		if do.run == nil || m.proto < do.proto {
			err := m.fail(ErrForbiddenOp, fmt.Sprintf("opcode %#02x", op), "one that torch.save writes", "")
			if m.forbidden != nil {
				m.forbidden.Err, err = err, m.forbidden
			}
			return nil, err
		}
		if m.forbidden != nil && do.acts {
			return nil, m.forbidden
		}
		if op == '.' {
			return m.pop()
		}
		if err := do.run(m); err != nil {
			if m.forbidden != nil {
				return nil, m.forbidden
			}
			var e *Error
			if errors.As(err, &e) && e.Offset == 0 {
				e.Offset = m.op
			}
			return nil, err
		}
		if len(m.stack) > MaxValues || len(m.memo)+len(m.sparse) > MaxValues || len(m.marks) > MaxValues {
			return nil, m.fail(ErrLimit, "stack and memo", fmt.Sprintf("at most %d values", MaxValues), "")
		}
	}
}

func (m *machine) fail(class error, detail, expected, actual string) error {
	return &Error{Class: class, Offset: m.op, Detail: detail, Expected: expected, Actual: actual}
}

// spend accounts for work that is more than the opcode's own bytes: the memo lets a few bytes name a large value.
func (m *machine) spend(n int) error {
	if m.work -= int64(n); m.work < 0 {
		return m.fail(ErrLimit, "the pickle asks for more work than its size explains", "", "")
	}
	return nil
}

// The stack.

func (m *machine) push(v Value) error {
	m.stack = append(m.stack, v)
	return nil
}

// floor is the part of the stack that only a mark may uncover.
func (m *machine) floor() int {
	if len(m.marks) == 0 {
		return 0
	}
	return m.marks[len(m.marks)-1]
}

func (m *machine) popN(n int) ([]Value, error) {
	at := len(m.stack) - n
	if at < m.floor() {
		return nil, m.fail(ErrBadPickle, "the stack is empty", "", "")
	}
	vs := m.stack[at:]
	m.stack = m.stack[:at]
	return vs, nil
}

func (m *machine) pop() (Value, error) {
	vs, err := m.popN(1)
	if err != nil {
		return nil, err
	}
	return vs[0], nil
}

func (m *machine) top() (Value, error) {
	if len(m.stack) == m.floor() {
		return nil, m.fail(ErrBadPickle, "the stack is empty", "", "")
	}
	return m.stack[len(m.stack)-1], nil
}

// popMark is what was pushed since the last mark, valid until the next push.
func (m *machine) popMark() ([]Value, error) {
	if len(m.marks) == 0 {
		return nil, m.fail(ErrBadPickle, "no mark", "", "")
	}
	at := m.floor()
	m.marks = m.marks[:len(m.marks)-1]
	vs := m.stack[at:]
	m.stack = m.stack[:at]
	return vs, nil
}

// The memo.

func (m *machine) put(i uint32) error {
	v, err := m.top()
	if err != nil {
		return err
	}
	switch {
	case int64(i) < int64(len(m.memo)):
		m.memo[i] = v
	case int64(i) == int64(len(m.memo)) && m.sparse == nil:
		m.memo = append(m.memo, v)
	default:
		if m.sparse == nil {
			m.sparse = map[uint32]Value{}
		}
		m.sparse[i] = v
	}
	return nil
}

func (m *machine) get(i uint32) error {
	if int64(i) < int64(len(m.memo)) {
		return m.push(m.memo[i])
	}
	v, ok := m.sparse[i]
	if !ok {
		return m.fail(ErrBadPickle, fmt.Sprintf("memo entry %d is not set", i), "", "")
	}
	return m.push(v)
}

// opcode is what to do for a byte, in pickles of at least the given protocol.
type opcode struct {
	run   func(m *machine) error
	proto byte
	acts  bool // it does more than to lay out values
}

// opcodes is the allow-list: what torch.load(weights_only=True) accepts, and what pickle writes instead of those under
// protocols 3 to 5.
var opcodes = [256]opcode{
	'.':  {run: func(*machine) error { return nil }, acts: true}, // STOP
	0x80: {run: (*machine).setProto},
	'(':  {run: func(m *machine) error { m.marks = append(m.marks, len(m.stack)); return nil }},

	'N':  {run: constant(nil)},
	0x88: {run: constant(true)},
	0x89: {run: constant(false)},
	'J': {run: func(m *machine) error {
		return m.pushInt(4, func(p []byte) int64 { return int64(int32(le.Uint32(p))) })
	}},
	'K':  {run: func(m *machine) error { return m.pushInt(1, func(p []byte) int64 { return int64(p[0]) }) }},
	'M':  {run: func(m *machine) error { return m.pushInt(2, func(p []byte) int64 { return int64(le.Uint16(p)) }) }},
	0x8a: {run: (*machine).long},
	'G':  {run: (*machine).float},

	'X':  {run: text(4)},           // BINUNICODE
	'U':  {run: text(1)},           // SHORT_BINSTRING: a str of Python 2
	0x8c: {run: text(1), proto: 4}, // SHORT_BINUNICODE
	0x8d: {run: text(8), proto: 4}, // BINUNICODE8
	'B':  {run: raw(4), proto: 3},  // BINBYTES
	'C':  {run: raw(1), proto: 3},  // SHORT_BINBYTES
	0x8e: {run: raw(8), proto: 4},  // BINBYTES8
	0x96: {run: raw(8), proto: 5},  // BYTEARRAY8

	')':  {run: constant(Tuple{})},
	't':  {run: func(m *machine) error { return m.tuple(m.popMark()) }},
	0x85: {run: func(m *machine) error { return m.tuple(m.popN(1)) }},
	0x86: {run: func(m *machine) error { return m.tuple(m.popN(2)) }},
	0x87: {run: func(m *machine) error { return m.tuple(m.popN(3)) }},
	']':  {run: func(m *machine) error { return m.push(&List{}) }},
	'a':  {run: func(m *machine) error { return m.extend(m.popN(1)) }, acts: true},
	'e':  {run: func(m *machine) error { return m.extend(m.popMark()) }, acts: true},
	'}':  {run: func(m *machine) error { return m.push(&Dict{}) }},
	's':  {run: func(m *machine) error { return m.setItems(m.popN(2)) }, acts: true},
	'u':  {run: func(m *machine) error { return m.setItems(m.popMark()) }, acts: true},
	0x8f: {run: func(m *machine) error { return m.push(&Set{}) }},
	0x90: {run: (*machine).addItems, proto: 4, acts: true},
	0x91: {run: (*machine).frozenSet, proto: 4},

	'q':  {run: index(1, (*machine).put)},
	'r':  {run: index(4, (*machine).put)},
	0x94: {run: func(m *machine) error { return m.put(uint32(len(m.memo) + len(m.sparse))) }, proto: 4},
	'h':  {run: index(1, (*machine).get)},
	'j':  {run: index(4, (*machine).get)},

	0x95: {run: (*machine).frame, proto: 4},
	'c':  {run: (*machine).global, acts: true},
	0x93: {run: (*machine).stackGlobal, proto: 4, acts: true},
	'R':  {run: (*machine).reduce, acts: true},
	0x81: {run: (*machine).newObj, acts: true},
	'b':  {run: (*machine).build, acts: true},
	'Q':  {run: (*machine).persID, acts: true},
}

func (m *machine) setProto() error {
	v, err := m.src.byte("protocol")
	if err != nil {
		return err
	}
	if v > 5 {
		return m.fail(ErrUnsupportedVersion, "pickle protocol", "at most 5", fmt.Sprint(v))
	}
	m.proto = v
	return nil
}

func constant(v Value) func(*machine) error {
	return func(m *machine) error { return m.push(v) }
}

func (m *machine) pushInt(n int64, decode func([]byte) int64) error {
	p, err := m.src.next(n, "integer")
	if err != nil {
		return err
	}
	return m.push(decode(p))
}

// long is a little-endian number in two's complement of up to 255 bytes.
func (m *machine) long() error {
	n, err := m.src.byte("length of an integer")
	if err != nil {
		return err
	}
	p, err := m.src.next(int64(n), "integer")
	if err != nil {
		return err
	}
	b := slices.Clone(p)
	slices.Reverse(b)
	v := new(big.Int).SetBytes(b)
	if n > 0 && b[0] >= 0x80 {
		v.Sub(v, new(big.Int).Lsh(big.NewInt(1), 8*uint(n)))
	}
	if v.IsInt64() {
		return m.push(v.Int64())
	}
	return m.push(v)
}

func (m *machine) float() error {
	p, err := m.src.next(8, "float")
	if err != nil {
		return err
	}
	return m.push(math.Float64frombits(binary.BigEndian.Uint64(p)))
}

// counted is bytes after their number, which has the given length.
func (m *machine) counted(lengthBytes int64) ([]byte, error) {
	p, err := m.src.next(lengthBytes, "length of a string")
	if err != nil {
		return nil, err
	}
	var b [8]byte
	copy(b[:], p)
	n := le.Uint64(b[:])
	if n > math.MaxInt64 {
		n = math.MaxInt64
	}
	return m.src.next(int64(n), "string")
}

func text(lengthBytes int64) func(*machine) error {
	return func(m *machine) error {
		p, err := m.counted(lengthBytes)
		if err != nil {
			return err
		}
		if !utf8.Valid(p) {
			return m.fail(ErrBadPickle, "a string is not UTF-8", "", fmt.Sprintf("%.40q", p))
		}
		return m.push(string(p))
	}
}

func raw(lengthBytes int64) func(*machine) error {
	return func(m *machine) error {
		p, err := m.counted(lengthBytes)
		if err != nil {
			return err
		}
		return m.push(slices.Clone(p))
	}
}

func (m *machine) tuple(vs []Value, err error) error {
	if err != nil {
		return err
	}
	return m.push(append(Tuple{}, vs...))
}

func (m *machine) extend(vs []Value, err error) error {
	if err != nil {
		return err
	}
	target, err := m.top()
	if err != nil {
		return err
	}
	switch l := target.(type) {
	case *List:
		l.Items = append(l.Items, vs...)
		return nil
	case *Opaque: // a subclass of list
		if l.Args != nil {
			l.Items = append(l.Items, vs...)
			return nil
		}
	}
	return m.fail(ErrBadArgs, "append", "a list", kindOf(target))
}

func (m *machine) setItems(vs []Value, err error) error {
	if err != nil {
		return err
	}
	target, err := m.top()
	if err != nil {
		return err
	}
	if len(vs)%2 != 0 {
		return m.fail(ErrBadPickle, "a key without a value", "", "")
	}
	d, ok := target.(*Dict)
	if o, is := target.(*Opaque); is && o.Args != nil { // a subclass of dict
		if d, ok = &o.Entries, true; d.items == nil {
			d.Class = PlainDict
		}
	}
	if !ok {
		return m.fail(ErrBadArgs, "set an item", "a dict", kindOf(target))
	}
	for i := 0; i < len(vs); i += 2 {
		if err := m.spendKey(vs[i]); err != nil {
			return err
		}
		if err := d.Set(vs[i], vs[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// spendKey accounts for hashing a key.
func (m *machine) spendKey(key Value) error {
	budget := maxKeyNodes
	return m.spend(keyCost(key, &budget))
}

// keyCost is about the bytes of a key by 16; it looks at no more values than hashing does.
func keyCost(key Value, budget *int) int {
	if *budget--; *budget < 0 {
		return 0
	}
	switch k := key.(type) {
	case string:
		return len(k) / 16
	case []byte:
		return len(k) / 16
	case *big.Int:
		return k.BitLen() / 128
	case Size:
		return 8 * len(k)
	case Tuple:
		n := 1
		for _, v := range k {
			if *budget < 0 {
				break
			}
			n += 8 + keyCost(v, budget)
		}
		return n
	}
	return 0
}

func (m *machine) addItems() error {
	vs, err := m.popMark()
	if err != nil {
		return err
	}
	target, err := m.top()
	if err != nil {
		return err
	}
	s, ok := target.(*Set)
	if !ok || s.Frozen {
		return m.fail(ErrBadArgs, "add to a set", "a set", kindOf(target))
	}
	return m.fill(s, vs)
}

func (m *machine) frozenSet() error {
	vs, err := m.popMark()
	if err != nil {
		return err
	}
	s := &Set{Frozen: true}
	if err := m.fill(s, vs); err != nil {
		return err
	}
	return m.push(s)
}

func (m *machine) fill(s *Set, vs []Value) error {
	for _, v := range vs {
		if err := m.spendKey(v); err != nil {
			return err
		}
		if err := s.Add(v); err != nil {
			return err
		}
	}
	return nil
}

func index(n int64, do func(*machine, uint32) error) func(*machine) error {
	return func(m *machine) error {
		p, err := m.src.next(n, "index of the memo")
		if err != nil {
			return err
		}
		var b [4]byte
		copy(b[:], p)
		return do(m, le.Uint32(b[:]))
	}
}

// frame announces that the next bytes belong together, which says nothing about what they are.
func (m *machine) frame() error {
	p, err := m.src.next(8, "length of a frame")
	if err != nil {
		return err
	}
	if n := le.Uint64(p); n > uint64(m.src.end-m.src.pos) {
		return m.fail(ErrTruncated, "frame", fmt.Sprintf("%d bytes", n), fmt.Sprint(m.src.end-m.src.pos))
	}
	return nil
}

func (m *machine) global() error {
	module, err := m.src.line("module of a global")
	if err != nil {
		return err
	}
	name, err := m.src.line("name of a global")
	if err != nil {
		return err
	}
	return m.pushGlobal(module, name)
}

func (m *machine) stackGlobal() error {
	vs, err := m.popN(2)
	if err != nil {
		return err
	}
	module, ok := vs[0].(string)
	name, ok2 := vs[1].(string)
	if !ok || !ok2 || len(module) > maxNameBytes || len(name) > maxNameBytes {
		return m.fail(ErrBadPickle, "a global", "two names", kindOf(vs[0])+", "+kindOf(vs[1]))
	}
	err = m.pushGlobal(module, name)
	if m.forbidden != nil {
		m.forbidden.Err = ErrForbiddenOp // torch.load(weights_only=True) knows no STACK_GLOBAL; here it is for names on the list
	}
	return err
}

// pushGlobal pushes what a name stands for.
func (m *machine) pushGlobal(module, name string) error {
	if module == "__builtin__" { // Python 2's, which protocol 2 writes
		module = "builtins"
	}
	full := module + "." + name
	if v, ok := globals[full]; ok {
		return m.push(v)
	}
	if strings.HasPrefix(full, "torch.distributed.tensor.") {
		return m.fail(ErrUnsupported, "", "", "a DTensor")
	}
	if !utf8.ValidString(full) {
		return m.fail(ErrForbiddenGlobal, "", "a name in UTF-8", fmt.Sprintf("%.100q", full))
	}
	if !m.keep { // refused as soon as something is done with it
		m.forbidden = &Error{Class: ErrForbiddenGlobal, Offset: m.op, Actual: fmt.Sprintf("%.200q", full), Expected: "a name on the list of what state dicts need",
			Remedy: "save a state dict, or open the file with KeepUnknown to see it as data"}
	}
	return m.push(&Opaque{Module: module, Name: name})
}

// reduce is a call: of what is on the list, or of an unknown name, which makes an Opaque value.
func (m *machine) reduce() error {
	vs, err := m.popN(2)
	if err != nil {
		return err
	}
	args, ok := vs[1].(Tuple)
	if !ok {
		return m.fail(ErrBadArgs, "arguments of a call", "a tuple", kindOf(vs[1]))
	}
	fn, ok := vs[0].(*Opaque)
	if !ok || fn.Args != nil {
		return m.fail(ErrBadArgs, "a call", "a function", kindOf(vs[0]))
	}
	v, err := m.apply(fn, args)
	if err != nil {
		return err
	}
	return m.push(v)
}

func (m *machine) apply(fn *Opaque, args Tuple) (Value, error) {
	switch {
	case fn.call == nil || fn.call.data != nil && (m.keep || fn.call.data(args)):
		return &Opaque{Module: fn.Module, Name: fn.Name, Args: args}, nil
	case fn.call.data != nil:
		return nil, m.fail(ErrForbiddenGlobal, "a call of "+fn.String(), "arguments that pickle gives it", "")
	case fn.call.run == nil:
		return nil, m.fail(ErrBadArgs, "a call of "+fn.String(), "only a mention of it", "")
	}
	v, err := fn.call.run(m, args)
	var e *Error
	if errors.As(err, &e) && e.Detail == "" {
		e.Detail = fn.String()
	} else if e != nil {
		e.Detail = fn.Name + ": " + e.Detail
	}
	return v, err
}

func (m *machine) newObj() error {
	vs, err := m.popN(2)
	if err != nil {
		return err
	}
	args, ok := vs[1].(Tuple)
	cls, ok2 := vs[0].(*Opaque)
	if !ok || !ok2 || cls.Args != nil {
		return m.fail(ErrBadArgs, "a new object", "a class and a tuple", kindOf(vs[0])+", "+kindOf(vs[1]))
	}
	switch {
	case cls.call == nil || cls.call.data != nil || cls.call.class && len(args) == 0:
		v, err := m.apply(cls, args)
		if err != nil {
			return err
		}
		return m.push(v)
	}
	return m.fail(ErrBadArgs, "a new object of "+cls.String(), "", "")
}

// build gives an object its attributes.
func (m *machine) build() error {
	state, err := m.pop()
	if err != nil {
		return err
	}
	target, err := m.top()
	if err != nil {
		return err
	}
	switch t := target.(type) {
	case *Dict:
		if _, ok := state.(*Dict); ok && t.Class == OrderedDict && t.State == nil {
			t.State = state
			return nil
		}
	case *Opaque:
		if t.Args != nil && t.State == nil {
			t.State = state
			return nil
		}
	}
	return m.fail(ErrBadArgs, "the attributes of an object", "an OrderedDict and a dict", kindOf(target)+", "+kindOf(state))
}

func (m *machine) persID() error {
	id, err := m.pop()
	if err != nil {
		return err
	}
	if m.persistent == nil {
		return m.fail(ErrForbiddenOp, "a persistent id where there can be none", "", "")
	}
	v, err := m.persistent(id)
	if err != nil {
		return err
	}
	return m.push(v)
}
