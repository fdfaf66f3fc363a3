package optim

import (
	"math/big"
	"testing"

	"github.com/stretchr/testify/require"
)

// Powers are the exact ones, rounded to the nearest float64.
func TestPow(t *testing.T) {
	for _, b := range []float64{0.9, 0.95, 0.999, 0.9999, 0.5, 0, 1} {
		exact := big.NewFloat(1).SetPrec(4000)
		for n := range 3000 {
			want, _ := exact.Float64()
			require.Equal(t, want, pow(b, float64(n)), "%v to the power of %d", b, n)
			exact.Mul(exact, big.NewFloat(b))
		}
	}
}
