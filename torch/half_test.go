package torch

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/half"
)

// internal/half agrees with libtorch on every number of 16 bits, and on how float32 is rounded. A
// NaN has to stay one; its payload is the processor's business.
func TestHalfAgreesWithLibtorch(t *testing.T) {
	f16, bf16 := make([]F16, 1<<16), make([]BF16, 1<<16)
	for i := range f16 {
		f16[i], bf16[i] = F16(i), BF16(i)
	}
	same := func(a, b float32) bool {
		return math.Float32bits(a) == math.Float32bits(b) || a != a && b != b
	}
	Scope(func() {
		for i, want := range ToSlice[float32](FromSlice(f16).ToDType(Float32)) {
			if got := f16[i].Float32(); !same(got, want) {
				t.Fatalf("float16 %#04x: got %v, libtorch has %v", i, got, want)
			}
		}
		for i, want := range ToSlice[float32](FromSlice(bf16).ToDType(Float32)) {
			if got := bf16[i].Float32(); !same(got, want) {
				t.Fatalf("bfloat16 %#04x: got %v, libtorch has %v", i, got, want)
			}
		}
	})
	random := rand.New(rand.NewPCG(1, 2))
	floats := make([]float32, 0, 1_500_000)
	for len(floats) < 1_000_000 { // any bits
		floats = append(floats, math.Float32frombits(random.Uint32()))
	}
	for i := range 1 << 16 { // every 16-bit number, the middle between it and the next, and their neighbours
		a, b := half.Float16(i).Float32(), half.Float16(i+1).Float32()
		middle := a + (b-a)/2
		c := math.Float32frombits(uint32(i)<<16 | 0x8000)
		floats = append(floats, a, middle, math.Nextafter32(middle, a), math.Nextafter32(middle, b),
			half.BFloat16(i).Float32(), c, math.Nextafter32(c, 0), math.Float32frombits(math.Float32bits(c)+1))
	}
	Scope(func() {
		x := FromSlice(floats)
		halves, brains := ToSlice[F16](x.ToDType(Float16)), ToSlice[BF16](x.ToDType(BFloat16))
		for i, f := range floats {
			if got := half.ToFloat16(f); got != halves[i] && !(f != f && got.Float32() != got.Float32() && halves[i].Float32() != halves[i].Float32()) {
				t.Fatalf("%v (%#08x) to float16: got %#04x, libtorch has %#04x", f, math.Float32bits(f), got, halves[i])
			}
			if got := half.ToBFloat16(f); got != brains[i] && !(f != f && got.Float32() != got.Float32() && brains[i].Float32() != brains[i].Float32()) {
				t.Fatalf("%v (%#08x) to bfloat16: got %#04x, libtorch has %#04x", f, math.Float32bits(f), got, brains[i])
			}
		}
	})
	require.Equal(t, F16(0x3c00), half.ToFloat16(1))
	t.Logf("2 x 65,536 patterns, %d numbers rounded", len(floats))
}
