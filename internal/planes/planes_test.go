package planes

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/torchgo/torchgo/internal/fileerr"
)

// frame codes data, written in pieces of the given size.
func frame(t testing.TB, data []byte, element, piece int) []byte {
	var out bytes.Buffer
	e, err := NewEncoder(&out, element)
	require.NoError(t, err)
	for p := data; len(p) > 0; {
		n, err := e.Write(p[:min(piece, len(p))])
		require.NoError(t, err)
		p = p[n:]
	}
	require.NoError(t, e.Close())
	require.EqualValues(t, out.Len(), e.Size())
	require.LessOrEqual(t, int64(out.Len()), MaxFrameBytes(element, int64(len(data))))
	return out.Bytes()
}

func open(t testing.TB, f []byte, element, length int) *Decoder {
	d, err := Open(bytes.NewReader(f), int64(len(f)), element, int64(length), Options{})
	require.NoError(t, err)
	return d
}

// normal are weights as they are made: N(0, 0.02), in elements of so many bytes (2: bfloat16).
func normal(n, element int, seed uint64) []byte {
	rnd := rand.New(rand.NewPCG(seed, 1))
	var out []byte
	for range n {
		x := rnd.NormFloat64() * 0.02
		switch b := math.Float32bits(float32(x)); element {
		case 2:
			out = binary.LittleEndian.AppendUint16(out, uint16(b>>16))
		case 4:
			out = binary.LittleEndian.AppendUint32(out, b)
		case 8:
			out = binary.LittleEndian.AppendUint64(out, math.Float64bits(x))
		default:
			for range element {
				out = append(out, byte(rnd.IntN(7)))
			}
		}
	}
	return out
}

// contents are tensors of all sorts, by name.
func contents(element int) map[string][]byte {
	rnd := rand.New(rand.NewPCG(3, uint64(element)))
	noise := make([]byte, element*(BlockElements+777))
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	most := bytes.Repeat([]byte{1}, element*BlockElements)
	most[len(most)-1] = 9
	return map[string][]byte{
		"empty": {}, "one": noise[:element], "small": normal(100, element, 1), "at the limit": normal(minHuffman, element, 2),
		"below": normal(minHuffman-1, element, 2), "one chunk": normal(BlockElements, element, 3), "a chunk and one": normal(BlockElements+1, element, 4),
		"three chunks": normal(3*BlockElements-5, element, 5), "noise": noise, "zeros": make([]byte, element*2*BlockElements),
		"one value but for the last": most, "ones": bytes.Repeat([]byte{0, 0, 0x80, 0x3f, 0, 1, 2, 3}[:element], 5000),
	}
}

func TestEveryByteComesBack(t *testing.T) {
	for element := 1; element <= MaxElement; element++ {
		if testing.Short() && element&(element-1) != 0 {
			continue // sizes of no dtype
		}
		for name, data := range contents(element) {
			t.Run(fmt.Sprint(element, " ", name), func(t *testing.T) {
				whole := frame(t, data, element, math.MaxInt)
				require.Equal(t, whole, frame(t, data, element, 100_003), "the frame depends on the pieces that it was written in")
				d := open(t, whole, element, len(data))
				got := make([]byte, len(data))
				require.NoError(t, d.ReadPart(got, 0))
				require.True(t, bytes.Equal(data, got))
			})
		}
	}
}

// Any range comes back, with a cache and without, and what is read for it is near it.
func TestAnyPart(t *testing.T) {
	const element = 2
	data := normal(5*BlockElements+99, element, 7)
	f := frame(t, data, element, math.MaxInt)
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, o := range []Options{{}, {Cache: &Cache{}}} {
		r := &counting{r: bytes.NewReader(f)}
		d, err := Open(r, int64(len(f)), element, int64(len(data)), o)
		require.NoError(t, err)
		for range 300 {
			off := rnd.IntN(len(data) + 1)
			n := rnd.IntN(len(data) - off + 1)
			if rnd.IntN(2) == 0 {
				n = min(n, 5000)
			}
			got := make([]byte, n)
			r.n.Store(0)
			require.NoError(t, d.ReadPart(got, int64(off)))
			require.True(t, bytes.Equal(data[off:off+n], got), "%d from %d", n, off)
			require.LessOrEqual(t, int(r.n.Load()), n+2*element*BlockElements)
		}
	}
	require.NoError(t, open(t, f, element, len(data)).ReadPart(nil, int64(len(data))))
	for _, bad := range [][2]int{{-1, 1}, {len(data), 1}, {len(data) + 1, 0}, {1, len(data)}} {
		err := open(t, f, element, len(data)).ReadPart(make([]byte, bad[1]), int64(bad[0]))
		require.ErrorIs(t, err, fileerr.ErrBounds)
	}
}

type counting struct {
	r io.ReaderAt
	n atomic.Int64 // bytes read
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	c.n.Add(int64(len(p)))
	return c.r.ReadAt(p, off)
}

// A frame is written and read in memory that does not grow with it.
func TestMemoryIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector makes pools forget")
	}
	const element, bytesInAll = 2, 256 << 20
	piece := normal(1<<20, element, 1)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	e, err := NewEncoder(io.Discard, element)
	require.NoError(t, err)
	for range bytesInAll / len(piece) {
		_, err := e.Write(piece)
		require.NoError(t, err)
	}
	require.NoError(t, e.Close())
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(48<<20), "allocated while writing")

	data := bytes.Repeat(piece, 32)
	f := frame(t, data, element, math.MaxInt)
	d := open(t, f, element, len(data))
	runtime.ReadMemStats(&before)
	for off := 0; off < len(data); off += len(piece) {
		require.NoError(t, d.ReadPart(piece, int64(off)))
	}
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(16<<20), "allocated while reading")
}

// The cache gives what was put in for the same frame and chunk alone, and keeps the last ones.
func TestCache(t *testing.T) {
	const element = 1
	data := normal(6*BlockElements, element, 8)
	f := frame(t, data, element, math.MaxInt)
	r := &counting{r: bytes.NewReader(f)}
	cache := &Cache{}
	d, err := Open(r, int64(len(f)), element, int64(len(data)), Options{Cache: cache})
	require.NoError(t, err)
	other, err := Open(bytes.NewReader(frame(t, make([]byte, 10*BlockElements), element, math.MaxInt)), int64(len(frame(t, make([]byte, 10*BlockElements), element, math.MaxInt))),
		element, 10*BlockElements, Options{Cache: cache})
	require.NoError(t, err)
	read := func(d *Decoder, c int) []byte {
		p := make([]byte, 10)
		require.NoError(t, d.ReadPart(p, int64(c)*BlockElements+5))
		return p
	}
	for c := range 4 {
		require.Equal(t, data[c*BlockElements+5:][:10], read(d, c))
	}
	r.n.Store(0)
	for c := range 4 {
		require.Equal(t, data[c*BlockElements+5:][:10], read(d, c))
	}
	require.Zero(t, r.n.Load(), "read again")
	require.Equal(t, make([]byte, 10), read(other, 3))
	require.Equal(t, data[3*BlockElements+5:][:10], read(d, 3))
	require.Zero(t, r.n.Load(), "read again")
	require.Equal(t, data[5:15], read(d, 0)) // gave way
	require.NotZero(t, r.n.Load())
}

// The bytes of a frame, by hand after the description of the format.
func TestFormat(t *testing.T) {
	data := []byte{1, 2, 3, 4, 5, 6}
	sum := func(p ...byte) []byte {
		return binary.LittleEndian.AppendUint32(nil, crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
	}
	tail := append([]byte{3, 0, 0, 0, 3, 0, 0, 0}, sum(data...)...)
	tail = append(tail, 't', 'g', 'p', '1', 2, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0)
	want := append([]byte{1, 3, 5, 2, 4, 6}, tail...)
	want = append(want, sum(tail...)...)
	require.Equal(t, want, frame(t, data, 2, 1))

	// 2,000 float32 ones: the planes 00 00 80 3f.
	ones := bytes.Repeat([]byte{0, 0, 0x80, 0x3f}, 2000)
	want = nil
	tail = nil
	for _, b := range []byte{0, 0, 0x80, 0x3f} {
		want = append(want, bytes.Repeat([]byte{b}, 160)...)
		tail = binary.LittleEndian.AppendUint32(tail, 1<<30|160)
	}
	tail = append(tail, sum(ones...)...)
	tail = append(tail, 't', 'g', 'p', '1', 4, 0, 0, 0, 0x40, 0x1f, 0, 0, 0, 0, 0, 0)
	want = append(append(want, tail...), sum(tail...)...)
	require.Equal(t, want, frame(t, ones, 4, 999))
}

// What pays is coded: bfloat16 weights get smaller by a third, float32 that came from them by more than a half.
// Noise costs the table alone.
func TestRatio(t *testing.T) {
	half := normal(8*BlockElements, 2, 9)
	wide := make([]byte, 2*len(half))
	for i := 0; i < len(half); i += 2 {
		wide[2*i+2], wide[2*i+3] = half[i], half[i+1]
	}
	for _, c := range []struct {
		name    string
		data    []byte
		element int
		below   float64
	}{
		{"bfloat16", half, 2, 0.70}, {"float32", normal(4*BlockElements, 4, 9), 4, 0.86}, {"float32 of bfloat16", wide, 4, 0.36}, {"zeros", make([]byte, 1<<20), 4, 0.01},
		{"noise", contents(4)["noise"], 4, 1.001},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := float64(len(frame(t, c.data, c.element, math.MaxInt))) / float64(len(c.data))
			require.Less(t, got, c.below)
		})
	}
}

func TestEncoderErrors(t *testing.T) {
	for _, element := range []int{-1, 0, MaxElement + 1} {
		_, err := NewEncoder(io.Discard, element)
		require.ErrorIs(t, err, fileerr.ErrBadHeader)
	}
	e, err := NewEncoder(io.Discard, 4)
	require.NoError(t, err)
	_, err = e.Write(make([]byte, 6))
	require.NoError(t, err)
	require.ErrorIs(t, e.Close(), fileerr.ErrSizeMismatch)

	full := errors.New("disk full")
	for after := range 3 {
		w := &failing{left: after, err: full}
		e, err := NewEncoder(w, 1)
		require.NoError(t, err)
		_, err = e.Write(make([]byte, 2*BlockElements))
		require.Equal(t, after < 2, errors.Is(err, full))
		require.ErrorIs(t, e.Close(), full)
		require.ErrorIs(t, e.Close(), full)
		_, err = e.Write([]byte{1})
		require.Error(t, err)
	}
}

type failing struct {
	left int // writes
	err  error
}

func (f *failing) Write(p []byte) (int, error) {
	if f.left == 0 {
		return 0, f.err
	}
	f.left--
	return len(p), nil
}

// read opens a frame and reads all of it.
func read(f []byte, element, length int) ([]byte, error) {
	d, err := Open(bytes.NewReader(f), int64(len(f)), element, int64(length), Options{})
	if err != nil {
		return nil, err
	}
	got := make([]byte, length)
	return got, d.ReadPart(got, 0)
}

// A flipped bit is an error, or one that does not count: of those that end a stream. A piece of a frame that is lost or
// too much is an error.
func TestDamage(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for _, element := range []int{1, 2, 4} {
		for name, data := range map[string][]byte{
			"coded": normal(2000, element, 1), "raw": normal(300, element, 1), "constant": make([]byte, 2000*element), "two chunks, coded": normal(BlockElements+50, element, 1),
		} {
			t.Run(fmt.Sprint(element, " ", name), func(t *testing.T) {
				f := frame(t, data, element, math.MaxInt)
				flips := 8 * len(f)
				if testing.Short() {
					flips = 600
				} else if flips > 5000 {
					flips = 1200
				}
				harmless := 0
				for i := range flips {
					bit := i
					if flips < 8*len(f) {
						bit = rnd.IntN(8 * len(f))
						if i < 8*60 && i < 8*len(f) {
							bit = 8*len(f) - 1 - i
						}
					}
					bad := bytes.Clone(f)
					bad[bit/8] ^= 1 << (bit % 8)
					got, err := read(bad, element, len(data))
					if err == nil {
						require.True(t, bytes.Equal(data, got), "bit %d", bit)
						require.Equal(t, "coded", strings.TrimPrefix(name, "two chunks, "), "bit %d", bit)
						harmless++
						continue
					}
					var e *Error
					require.ErrorAs(t, err, &e, "bit %d", bit)
					require.NotContains(t, err.Error(), "\n")
				}
				require.Less(t, harmless, 1+flips/100)
				for i := range min(len(f), 200) {
					cut := i
					if len(f) > 200 {
						cut = rnd.IntN(len(f))
					}
					_, err := read(f[:cut], element, len(data))
					require.Error(t, err, "cut at %d", cut)
					_, err = read(f[len(f)-cut:], element, len(data))
					require.Error(t, err, "without the first %d", len(f)-cut)
				}
				_, err := read(append(bytes.Clone(f), 0), element, len(data))
				require.Error(t, err)
				_, err = read(append([]byte{0}, f...), element, len(data))
				require.Error(t, err)
			})
		}
	}
}

// What a frame says must be what the caller knows.
func TestHeaders(t *testing.T) {
	data := normal(4000, 4, 1)
	f := frame(t, data, 4, math.MaxInt)
	refoot := func(change func(p []byte)) []byte { // with a valid checksum
		p := bytes.Clone(f)
		change(p)
		tail := p[len(p)-footBytes-20 : len(p)-4]
		binary.LittleEndian.PutUint32(p[len(p)-4:], crc32.Checksum(tail, castagnoli))
		return p
	}
	foot := len(f) - footBytes
	table := foot - 20
	for _, c := range []struct {
		name            string
		frame           []byte
		element, length int
		class           error
	}{
		{"magic", refoot(func(p []byte) { p[foot] = 'x' }), 4, 16000, fileerr.ErrBadHeader},
		{"version", refoot(func(p []byte) { p[foot+3] = '2' }), 4, 16000, fileerr.ErrUnsupportedVersion},
		{"element", f, 2, 16000, fileerr.ErrSizeMismatch},
		{"its element", refoot(func(p []byte) { p[foot+4] = 2 }), 4, 16000, fileerr.ErrSizeMismatch},
		{"reserved", refoot(func(p []byte) { p[foot+5] = 1 }), 4, 16000, fileerr.ErrSizeMismatch},
		{"length", f, 4, 16004, fileerr.ErrSizeMismatch},
		{"its length", refoot(func(p []byte) { p[foot+9]++ }), 4, 16000, fileerr.ErrSizeMismatch},
		{"kind", refoot(func(p []byte) { p[table+3] |= 0xc0 }), 4, 16000, fileerr.ErrBadHeader},
		{"stored too much", refoot(func(p []byte) { p[table]++ }), 4, 16000, fileerr.ErrBadHeader},
		{"one plane gives to the next", refoot(func(p []byte) { p[table+12]++ }), 4, 16000, fileerr.ErrSizeMismatch},
		{"longest", f, 1, math.MaxInt, fileerr.ErrSizeMismatch},
		{"not whole", f, 4, 15999, fileerr.ErrSizeMismatch},
		{"negative", f, 4, -4, fileerr.ErrSizeMismatch},
		{"no element", f, 0, 16000, fileerr.ErrBadHeader},
		{"large element", f, 16, 16000, fileerr.ErrBadHeader},
		{"checksum of the elements", refoot(func(p []byte) { p[table+16]++ }), 4, 16000, fileerr.ErrChecksum},
		{"empty", nil, 4, 16000, fileerr.ErrSizeMismatch},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := read(c.frame, c.element, c.length)
			require.ErrorIs(t, err, c.class)
		})
	}
	_, err := Open(bytes.NewReader(f[:len(f)-1]), int64(len(f)), 4, 16000, Options{}) // it shrank
	require.ErrorIs(t, err, fileerr.ErrTruncated)
}

// A frame of a few bytes can't become terabytes, whatever it says.
func TestGrowthIsBounded(t *testing.T) {
	for element := 1; element <= MaxElement; element++ {
		data := make([]byte, 8*BlockElements*element)
		require.Less(t, len(data), 1000*len(frame(t, data, element, math.MaxInt)))
	}
	least := layout{1, 1 << 40}
	f := putFoot(make([]byte, 1<<20), least, 0)
	allocated := testing.AllocsPerRun(1, func() {
		_, err := Open(bytes.NewReader(f), int64(len(f)), 1, least.bytes, Options{})
		require.ErrorIs(t, err, fileerr.ErrSizeMismatch)
		require.True(t, strings.Contains(err.Error(), "1099511627776"), err.Error())
	})
	require.Less(t, allocated, 100.0)
}

// A frame of any bytes, with a valid checksum of its table or not, is read or is an error; what is read back
// through the encoder is the same.
func FuzzPlanes(f *testing.F) {
	for _, element := range []int{1, 2, 4, 8} {
		for _, n := range []int{0, 1, 900, 1100, 3000} {
			f.Add(frame(f, normal(n, element, 1), element, math.MaxInt), uint8(element), uint32(n*element), true)
			f.Add(frame(f, make([]byte, n*element), element, math.MaxInt), uint8(element), uint32(n*element), false)
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte, element uint8, length uint32, sign bool) {
		length %= 1 << 22
		if sign && element > 0 && element <= MaxElement {
			l := layout{int(element), int64(length)}
			if tail := l.tailBytes(); int64(len(frame)) >= tail {
				table := frame[int64(len(frame))-tail : len(frame)-footBytes]
				frame = putFoot(bytes.Clone(frame[:len(frame)-footBytes]), l, crc32.Checksum(table, castagnoli))
			}
		}
		got, err := read(frame, int(element), int(length))
		if err != nil {
			var e *Error
			require.ErrorAs(t, err, &e)
			require.NotNil(t, e.Class)
			return
		}
		d, err := Open(bytes.NewReader(frame), int64(len(frame)), int(element), int64(length), Options{Cache: &Cache{}})
		require.NoError(t, err)
		part := make([]byte, length/3)
		require.NoError(t, d.ReadPart(part, int64(length/2)))
		require.Equal(t, got[length/2:][:length/3], part)
		var again bytes.Buffer
		e, err := NewEncoder(&again, int(element))
		require.NoError(t, err)
		_, err = e.Write(got)
		require.NoError(t, err)
		require.NoError(t, e.Close())
		back, err := read(again.Bytes(), int(element), int(length))
		require.NoError(t, err)
		require.True(t, bytes.Equal(got, back))
	})
}
