package pickle

import (
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// loaded is what an archive with this pickle has.
func loaded(t testing.TB, pickle string, o Options) (Value, error) {
	data := around([]byte(pickle))
	if _, err := check(t, data, o); err != nil {
		return nil, err
	}
	f, err := open(data, o)
	require.NoError(t, err)
	return f.Root(), nil
}

// str pushes a string, list what is between its marks.
func str(s string) string { return "X" + string(le.AppendUint32(nil, uint32(len(s)))) + s }

// Each opcode, in the shortest pickle that has it: ](X...e. is a list of what X pushes.
func TestOpcodes(t *testing.T) {
	set := func(frozen bool, vs ...Value) *Set {
		s := &Set{Frozen: frozen}
		for _, v := range vs {
			require.NoError(t, s.Add(v))
		}
		return s
	}
	big70 := new(big.Int).Lsh(big.NewInt(1), 70)
	for _, c := range []struct {
		proto byte
		code  string
		want  Value
	}{
		{2, "N", nil}, {2, "\x88", true}, {2, "\x89", false},
		{2, "K\xff", int64(255)}, {2, "M\x01\x02", int64(0x201)}, {2, "J\xfe\xff\xff\xff", int64(-2)},
		{2, "\x8a\x00", int64(0)}, {2, "\x8a\x01\x80", int64(-128)}, {2, "\x8a\x02\x80\x00", int64(128)},
		{2, "\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80", int64(-1 << 63)},
		{2, "\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x40", big70},
		{2, "G\x3f\xf8\x00\x00\x00\x00\x00\x00", 1.5},
		{2, str("äb"), "äb"}, {2, "U\x02ab", "ab"}, {4, "\x8c\x02ab", "ab"}, {4, "\x8d\x02\x00\x00\x00\x00\x00\x00\x00ab", "ab"},
		{3, "B\x02\x00\x00\x00\xff\x00", []byte{255, 0}}, {3, "C\x01\xff", []byte{255}}, {4, "\x8e\x01\x00\x00\x00\x00\x00\x00\x00a", []byte("a")},
		{5, "\x96\x01\x00\x00\x00\x00\x00\x00\x00a", []byte("a")},
		{2, ")", Tuple{}}, {2, "(K\x01K\x02t", Tuple{int64(1), int64(2)}}, {2, "K\x01\x85", Tuple{int64(1)}}, {2, "K\x01K\x02\x86", Tuple{int64(1), int64(2)}},
		{2, "NNK\x03\x87", Tuple{nil, nil, int64(3)}},
		{2, "]", &List{}}, {2, "]K\x01a", &List{Items: []Value{int64(1)}}}, {2, "](K\x01K\x02e", &List{Items: []Value{int64(1), int64(2)}}},
		{2, "}K\x01Ns", dict(int64(1), nil)}, {2, "}(K\x01NK\x02Nu", dict(int64(1), nil, int64(2), nil)},
		{4, "\x8f(K\x01K\x02\x90", set(false, int64(1), int64(2))}, {4, "(K\x01\x91", set(true, int64(1))},
		{2, "K\x07q\x05h\x05\x86", Tuple{int64(7), int64(7)}}, {2, "K\x07r\xff\xff\xff\xffj\xff\xff\xff\xff\x86", Tuple{int64(7), int64(7)}},
		{4, "K\x07\x94h\x00\x86", Tuple{int64(7), int64(7)}}, {2, "K\x01q\x00K\x02q\x00h\x00\x87", Tuple{int64(1), int64(2), int64(2)}},
		{2, "ctorch\nfloat32\n", DType("float32")}, {4, "\x8c\x05torch\x8c\x07float16\x93", DType("float16")},
		{2, "ctorch\nSize\n(K\x01K\x02t\x85R", Size{1, 2}}, {2, "ctorch\ndevice\n" + str("cuda") + "K\x01\x86R", Device("cuda:1")},
		{2, "c__builtin__\ncomplex\nG\x3f\xf8\x00\x00\x00\x00\x00\x00G\x3f\xf8\x00\x00\x00\x00\x00\x00\x86R", 1.5 + 1.5i},
		{2, "c_codecs\nencode\n" + str("\u00ff\u0000") + str("latin1") + "\x86R", []byte{255, 0}},
		{2, "c__builtin__\nbytearray\n" + str("\u00e9") + str("latin-1") + "\x86R", []byte{0xe9}}, {2, "c__builtin__\nbytes\n)R", []byte{}},
		{2, "ccollections\nOrderedDict\n)\x81", &Dict{Class: OrderedDict}},
		{2, "ccollections\nOrderedDict\n](K\x01K\x02\x86e\x85R", &Dict{Class: OrderedDict, items: []Item{{int64(1), int64(2)}}}},
		{2, "ccollections\nCounter\n}K\x01K\x02s\x85R", &Dict{Class: Counter, items: []Item{{int64(1), int64(2)}}}},
		{2, "ccollections\nOrderedDict\n)R}" + str("a") + "Nsb", &Dict{Class: OrderedDict, State: dict("a", nil)}},
		{4, "\x95\x01\x00\x00\x00\x00\x00\x00\x00N", nil},
	} {
		got, err := loaded(t, "\x80"+string(c.proto)+"]"+c.code+"a.", Options{})
		require.NoError(t, err, "%q", c.code)
		require.Equal(t, &List{Items: []Value{c.want}}, got, "%q", c.code)
		if c.proto > 2 {
			_, err = loaded(t, "\x80\x02]"+c.code+"a.", Options{})
			require.ErrorIs(t, err, ErrForbiddenOp, "%q is newer than protocol 2", c.code)
		}
	}
}

// What isn't on the list is refused whatever else is right.
func TestOpcodesOffTheList(t *testing.T) {
	for op := range 256 {
		if opcodes[op].run != nil {
			continue
		}
		_, err := loaded(t, "\x80\x05]"+string([]byte{byte(op)})+"N\n0\n.", Options{KeepUnknown: true})
		require.ErrorIs(t, err, ErrForbiddenOp, "%#x", op)
		require.ErrorContains(t, err, "at byte")
	}
}

func TestUnknownClassesAreKeptAsData(t *testing.T) {
	keep := Options{KeepUnknown: true}
	object := "c__main__\nPoint\n)\x81"
	for _, c := range []struct {
		code string
		want *Opaque
	}{
		{"c__main__\nPoint\n", &Opaque{Module: "__main__", Name: "Point"}},
		{object, &Opaque{Module: "__main__", Name: "Point", Args: Tuple{}}},
		{object + "}" + str("x") + "K\x01sb", &Opaque{Module: "__main__", Name: "Point", Args: Tuple{}, State: dict("x", int64(1))}},
		{"cos\nsystem\n" + str("true") + "\x85R", &Opaque{Module: "os", Name: "system", Args: Tuple{"true"}}},
		{object + "(K\x01K\x02e", &Opaque{Module: "__main__", Name: "Point", Args: Tuple{}, Items: []Value{int64(1), int64(2)}}},
		{object + "K\x01K\x02s", &Opaque{Module: "__main__", Name: "Point", Args: Tuple{}, Entries: *dict(int64(1), int64(2))}},
	} {
		got, err := loaded(t, "\x80\x02]"+c.code+"a.", keep)
		require.NoError(t, err, "%q", c.code)
		require.Equal(t, &List{Items: []Value{c.want}}, got)
		_, err = loaded(t, "\x80\x02]"+c.code+"a.", Options{})
		require.ErrorIs(t, err, ErrForbiddenGlobal)
		require.ErrorContains(t, err, c.want.String())
	}
	for code, class := range map[string]error{
		object + ")R":                ErrBadArgs, // an object isn't a function
		"c__main__\nPoint\nK\x01a":   ErrBadArgs, // a class isn't a list
		"c__main__\nPoint\nNb":       ErrBadArgs, // nor does it get attributes
		object + "NbNb":              nil,
		object + "K\x01bK\x01b":      ErrBadArgs, // twice
		"ctorch\nTensor\nK\x09\x85R": ErrBadArgs, // names on the list keep their rules
	} {
		_, err := loaded(t, "\x80\x02]"+code+"a.", keep)
		require.ErrorIs(t, err, class, "%q", code)
	}
}

// The memo names large values in two bytes. What that may cost is bounded; check fails a test where it isn't.
func TestFewBytesAreLittleWork(t *testing.T) {
	large := str(strings.Repeat("x", 1<<16)) + "q\x00"
	list := "](" + strings.Repeat("N", 1<<16) + "eq\x00"
	numbers := "](" + strings.Repeat("K\x01", 1<<16) + "eq\x00"
	tensor := "ctorch._utils\n_rebuild_tensor\nq\x01(" + storageOf("0") + "K\x00(" + strings.Repeat("K\x01", 60) + "t(" + strings.Repeat("K\x01", 60) + "ttq\x02R"
	for name, code := range map[string]string{
		"encode":       large + "c_codecs\nencode\nq\x01h\x00" + str("latin1") + "\x86q\x02R" + strings.Repeat("h\x01h\x02R", 1<<14),
		"set":          list + "c__builtin__\nset\nq\x01h\x00\x85q\x02R" + strings.Repeat("h\x01h\x02R", 1<<14),
		"size":         numbers + "ctorch\nSize\nq\x01h\x00\x85q\x02R" + strings.Repeat("h\x01h\x02R", 1<<14),
		"keys":         large + "}q\x01" + strings.Repeat("h\x00Ns", 1<<17),
		"tuple keys":   "(" + strings.Repeat("K\x01", 900) + "tq\x00}q\x01" + strings.Repeat("h\x00Ns", 1<<17),
		"nested keys":  large + "h\x00h\x00h\x00\x87q\x02}" + strings.Repeat("h\x02Ns", 1<<17),
		"ordered dict": "](" + strings.Repeat("K\x01K\x01\x86", 1<<13) + "eq\x00ccollections\nOrderedDict\nq\x01h\x00\x85q\x02R" + strings.Repeat("h\x01h\x02R", 1<<14),
		"tensors":      tensor + strings.Repeat("h\x01h\x02R", 1<<16),
	} {
		_, err := loaded(t, "\x80\x02"+code+"0.", Options{})
		require.ErrorIs(t, err, ErrLimit, name)
	}
	// Names of tensors: a long key over many, and a container at many places.
	one := "ctorch._utils\n_rebuild_tensor\n(" + storageOf("0") + "K\x00K\x01\x85K\x01\x85tRq\x05"
	key := str(strings.Repeat("k", 1<<16))
	many := "}(" + key + "](" + one + strings.Repeat("h\x05", 1<<16) + "eu"
	_, err := loaded(t, "\x80\x02"+many+".", Options{})
	require.ErrorIs(t, err, ErrLimit)
	dag := one + "\x85"
	for i := range 30 {
		dag += fmt.Sprintf("q%ch%c\x86", i+10, i+10)
	}
	_, err = loaded(t, "\x80\x02"+dag+".", Options{})
	require.ErrorIs(t, err, ErrLimit)
	// What real pickles have is far from the bounds: a name for every tensor, named again.
	var b strings.Builder
	b.WriteString("\x80\x02}(")
	b.WriteString(str("w0") + one)
	for i := range 2000 {
		b.WriteString(str(fmt.Sprintf("layers.%d.weight", i)) + "h\x05")
	}
	b.WriteString("u.")
	_, err = loaded(t, b.String(), Options{})
	require.NoError(t, err)
}

// storageOf pushes a storage of floats of the archive that around makes: "0" has 4.
func storageOf(key string) string {
	return "(" + str("storage") + "ctorch\nFloatStorage\n" + str(key) + str("cpu") + "K\x04tQ"
}

func TestErrorsSayWhere(t *testing.T) {
	_, err := loaded(t, "\x80\x02]h\x07a.", Options{})
	require.EqualError(t, err, "fuzz.pt: bad pickle: memo entry 7 is not set (at byte 49)")
	_, err = loaded(t, "\x80\x02]ctorch._utils\n_rebuild_tensor\n("+storageOf("0")+"K\x01K\x04\x85K\x01\x85tRa.", Options{})
	require.ErrorIs(t, err, ErrBounds)
	require.ErrorContains(t, err, "_rebuild_tensor: expected a view in 16 bytes of float32, got [4] by [1] from 1 (at byte ")
}

// Tensors of devices that torch saves from the CPU.
func TestDeviceTensors(t *testing.T) {
	device := func(dtype string) string {
		return "\x80\x02}" + str("w") + "ctorch._utils\n_rebuild_device_tensor_from_cpu_tensor\n(" +
			"ctorch._utils\n_rebuild_tensor\n(" + storageOf("0") + "K\x00K\x04\x85K\x01\x85tRctorch\n" + dtype + "\n" + str("xla:0") + "\x88tRs."
	}
	v, err := loaded(t, device("float32"), Options{})
	require.NoError(t, err)
	w, _ := v.(*Dict).Get("w")
	require.True(t, w.(*Tensor).RequiresGrad)
	require.Equal(t, []int{4}, w.(*Tensor).Shape)
	_, err = loaded(t, device("float16"), Options{})
	require.ErrorIs(t, err, ErrUnsupported)
	require.ErrorContains(t, err, "float16 tensor saved as float32")
}
