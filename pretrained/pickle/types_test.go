package pickle

import (
	"fmt"
	"math"
	"math/big"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDictKeysAreEqualAsInPython(t *testing.T) {
	huge, _ := new(big.Int).SetString("1180591620717411303424", 10) // 2^70, exact as a float
	for _, same := range [][]Value{
		{int64(1), true, 1.0, complex(1, 0), big.NewInt(1)},
		{int64(0), false, math.Copysign(0, -1)},
		{"1"},
		{[]byte("1")},
		{nil},
		{huge, new(big.Int).Set(huge), 0x1p70},
		{Tuple{int64(1), "a"}, Tuple{true, "a"}},
		{Tuple{int64(2), int64(3)}, Size{2, 3}},
		{Tuple{"a", "b"}},
		{Tuple{"a;b"}},
		{Tuple{Tuple{"a"}, "b"}},
		{Tuple{Tuple{"a", "b"}}},
		{DType("float32")},
		{"float32"},
		{1.5},
	} {
		d := &Dict{}
		for i, k := range same {
			require.NoError(t, d.Set(k, int64(i)))
		}
		require.Equal(t, 1, d.Len(), "%v", same)
		v, ok := d.Get(same[0])
		require.True(t, ok)
		require.Equal(t, int64(len(same)-1), v)
	}
	d := &Dict{}
	for _, k := range []Value{"1", int64(1), []byte("1"), nil, Tuple{"a", "b"}, Tuple{"a;b"}, Tuple{Tuple{"a"}, "b"}, DType("float32"), "float32", 1.5, huge, &Tensor{}, &Tensor{}} {
		require.NoError(t, d.Set(k, nil))
	}
	require.Equal(t, 13, d.Len())
}

func TestDictKeepsItsOrderAndGrows(t *testing.T) {
	d := &Dict{}
	for i := range 100 {
		require.NoError(t, d.Set(fmt.Sprint(i), int64(i)))
		require.NoError(t, d.Set(fmt.Sprint(i/2), int64(-i)))
	}
	require.Equal(t, 100, d.Len())
	i := 0
	for k, v := range d.Items() {
		require.Equal(t, fmt.Sprint(i), k)
		got, ok := d.Get(k)
		require.True(t, ok)
		require.Equal(t, v, got)
		i++
	}
	_, ok := d.Get("100")
	require.False(t, ok)
}

func TestValuesThatAreNoKeys(t *testing.T) {
	for _, k := range []Value{&List{}, &Dict{}, &Set{}, Tuple{&List{}}, Tuple{Tuple{&Dict{}}}} {
		require.ErrorIs(t, new(Dict).Set(k, nil), ErrBadArgs)
		require.ErrorIs(t, new(Set).Add(k), ErrBadArgs)
		_, ok := new(Dict).Get(k)
		require.False(t, ok)
	}
	var deep Value = int64(1)
	for range 100 {
		deep = Tuple{deep, deep}
	}
	require.ErrorIs(t, new(Dict).Set(deep, nil), ErrLimit, "2^100 values")
	for range 100_000 {
		deep = Tuple{deep}
	}
	require.ErrorIs(t, new(Dict).Set(deep, nil), ErrLimit)
	frozen := &Set{Frozen: true}
	require.NoError(t, frozen.Add("a"))
	require.NoError(t, new(Set).Add(frozen))
	require.True(t, frozen.Has("a"))
}
