package torch

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestUnique(t *testing.T) {
	Scope(func() {
		x := FromSlice([]int64{3, 1, 3, 2, 1, 3}, 2, 3)
		values, inverse, counts := x.Unique(UniqueOptions{ReturnInverse: true, ReturnCounts: true})
		require.Equal(t, []int64{1, 2, 3}, ToSlice[int64](values))
		require.Equal(t, []int64{2, 0, 2, 1, 0, 2}, ToSlice[int64](inverse))
		require.Equal(t, []int{2, 3}, inverse.Shape())
		require.Equal(t, []int64{2, 1, 3}, ToSlice[int64](counts))
		require.True(t, values.IndexSelect(0, inverse.Flatten()).ViewAs(x).Equal(x))

		rows := FromSlice([]int64{5, 6, 1, 2, 5, 6}, 3, 2)
		values, inverse, counts = rows.Unique(UniqueOptions{Dim: Some(0), ReturnInverse: true})
		require.Equal(t, []int64{1, 2, 5, 6}, ToSlice[int64](values))
		require.Equal(t, []int64{1, 0, 1}, ToSlice[int64](inverse))
		require.Nil(t, counts)
	})
}
