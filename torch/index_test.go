package torch

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The expectations are NumPy's and Python torch's semantics for x = arange(24).view(2, 3, 4).
func TestAt(t *testing.T) {
	Scope(func() {
		x := Arange(24).View(2, 3, 4)
		mask := FromSlice([]bool{true, false, true})
		rows := FromSlice([]int64{2, 0})
		for _, c := range []struct {
			name  string
			index []Index
			shape []int
			want  []int64
		}{
			{"x[1]", []Index{1}, []int{3, 4}, []int64{12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23}},
			{"x[-1, 0, 2]", []Index{-1, 0, 2}, []int{}, []int64{14}},
			{"x[:, 1]", []Index{All, 1}, []int{2, 4}, []int64{4, 5, 6, 7, 16, 17, 18, 19}},
			{"x[..., 0]", []Index{Ellipsis, 0}, []int{2, 3}, []int64{0, 4, 8, 12, 16, 20}},
			{"x[0, 1:, :2]", []Index{0, From(1), To(2)}, []int{2, 2}, []int64{4, 5, 8, 9}},
			{"x[0, 0, 1:4:2]", []Index{0, 0, Between(1, 4).By(2)}, []int{2}, []int64{1, 3}},
			{"x[0, 0, -2:]", []Index{0, 0, From(-2)}, []int{2}, []int64{2, 3}},
			{"x[1, None, 2, :1]", []Index{1, NewAxis, 2, To(1)}, []int{1, 1}, []int64{20}},
			{"x[0, rows, 1]", []Index{0, rows, 1}, []int{2}, []int64{9, 1}},
			{"x[1, mask, 3]", []Index{1, mask, 3}, []int{2}, []int64{15, 23}},
			{"x[:, rows, 0]", []Index{All, rows, 0}, []int{2, 2}, []int64{8, 0, 20, 12}},
			{"x[0, [2, 0], 1]", []Index{0, []int{2, 0}, int64(1)}, []int{2}, []int64{9, 1}},
			{"x[[True, False]]", []Index{[]bool{true, false}, 0, 0}, []int{1}, []int64{0}},
			{"x[x > 21]", []Index{x.GtScalar(21)}, []int{2}, []int64{22, 23}},
			{"x[..., rows]", []Index{Ellipsis, rows}, []int{2, 3, 2}, []int64{2, 0, 6, 4, 10, 8, 14, 12, 18, 16, 22, 20}},
		} {
			y := x.At(c.index...)
			require.Equal(t, c.shape, y.Shape(), c.name)
			require.Equal(t, c.want, ToSlice[int64](y), c.name)
		}
		require.Equal(t, x.StorageID(), x.At(0, From(1)).StorageID(), "a view")
		whole := x.At(Ellipsis)
		whole.Close()
		require.False(t, x.Closed())

		for _, bad := range [][]Index{{2}, {0, 0, 0, 0}, {Ellipsis, Ellipsis}, {"x"}, {All.By(-1)}, {FromSlice([]int64{5})}} {
			_, err := Try(func() *Tensor { return x.At(bad...) })
			require.Error(t, err, "%v", bad)
		}
	})
}

func TestSetAt(t *testing.T) {
	Scope(func() {
		x := Zeros([]int{2, 3})
		x.SetAt(1, 0)
		x.SetAt(FromSlice([]float32{7, 8}), All, 2)
		x.SetAt(-1, x.EqScalar(0))
		require.Equal(t, []float32{1, 1, 7, -1, -1, 8}, ToSlice[float32](x))
		x.SetAt(9, FromSlice([]int64{1, 0}), FromSlice([]int64{0, 1}))
		require.Equal(t, []float32{1, 9, 7, 9, -1, 8}, ToSlice[float32](x))
	})
}
