package optim

import "math"

// pow is b to the power of a step counter t, rounded once. math.Pow is off by some units in the last place,
// which 1 − βᵗ makes a thousand times larger; Python uses C's pow, which is not.
func pow(b, t float64) float64 {
	if t != math.Trunc(t) || t < 0 || t > 1<<53 {
		return math.Pow(b, t)
	}
	// Squaring, with numbers that are the sum of two float64.
	high, low := 1.0, 0.0
	for n, sh, sl := uint64(t), b, 0.0; n > 0; n >>= 1 {
		if n&1 == 1 {
			high, low = mul2(high, low, sh, sl)
		}
		sh, sl = mul2(sh, sl, sh, sl)
	}
	return high + low
}

// mul2 multiplies (ah + al) by (bh + bl).
func mul2(ah, al, bh, bl float64) (high, low float64) {
	p := ah * bh
	e := math.FMA(ah, bh, -p) + (ah*bl + al*bh)
	high = p + e
	return high, e - (high - p)
}
