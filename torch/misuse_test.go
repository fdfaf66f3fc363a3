package torch

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever is passed to the hand-written functions: a result or a *Error, no other panic, and the
// process lives. (Operators: TestOperatorsWithBadArguments.)
func TestNothingPanicsButErrors(t *testing.T) {
	before := LiveTensors()
	shapes := [][]int{nil, {}, {0}, {-1}, {3, -2}, {math.MaxInt}, {math.MinInt}, {1 << 32, 1 << 32}, {1 << 62, 2}, {0, math.MaxInt}, make([]int, 100)}
	ints := []int{0, 1, -1, 2, 7, -9, math.MaxInt, math.MinInt, 1 << 40}
	type struct1 struct{ X int }
	odd := []any{nil, 1, -1, "x", 1.5, math.NaN(), true, struct1{}, []int{1}, []any{1}, (*Tensor)(nil), DType(99), Device{Type: 99}, Device{Type: DeviceCUDA, Index: 999}, complex(1, 2), uint64(math.MaxUint64), []string{"a"}, []bool{true}, func() {}}
	tensors := map[string]func() *Tensor{
		"nil":      func() *Tensor { return nil },
		"closed":   func() *Tensor { x := Ones([]int{2}); x.Close(); return x },
		"scalar":   func() *Tensor { return FromValue(float32(1)) },
		"empty":    func() *Tensor { return Ones([]int{0, 3}) },
		"int":      func() *Tensor { return FromSlice([]int64{1, 2, 3, 4}, 2, 2) },
		"bool":     func() *Tensor { return FromSlice([]bool{true, false}) },
		"complex":  func() *Tensor { return FromSlice([]complex64{1i}) },
		"grad":     func() *Tensor { return Ones([]int{2}).SetRequiresGrad(true) },
		"view":     func() *Tensor { return Ones([]int{2, 3}).T() },
		"expanded": func() *Tensor { return Ones([]int{1}).Expand(1 << 40) },
		"meta":     func() *Tensor { return Ones([]int{2}, TensorOptions{Device: Meta}) },
		"sparse":   func() *Tensor { return Eye(3).ToSparse() },
		"bfloat16": func() *Tensor { return Ones([]int{2}, TensorOptions{DType: BFloat16}) },
	}
	calls := 0
	try := func(what string, fn func()) {
		t.Helper()
		calls++
		defer func() {
			if p := recover(); p != nil {
				t.Errorf("%s: %T %v", what, p, p)
			}
		}()
		_ = TryDo(func() { Scope(fn) })
	}
	for _, shape := range shapes {
		if len(shape) > 0 && shape[0] == 1<<62 {
			continue
		}
		name := fmt.Sprint("shape ", shape[:min(len(shape), 3)])
		try(name+" FromSlice", func() { FromSlice([]float32{1, 2}, shape...) })
		try(name+" FromBlob", func() { FromBlob(pointerTo([]byte{1}), 1, shape, Uint8, nil) })
		try(name+" FromBlob strides", func() { FromBlob(pointerTo([]byte{1}), 1, []int{1}, Uint8, nil, shape...) })
		try(name+" FromBlob bytes", func() { FromBlob(nil, -1, shape, Float32, nil) })
		try(name+" Empty", func() { Empty(shape) })
		try(name+" View", func() { Ones([]int{2, 3}).View(shape...) })
		try(name+" Expand", func() { Ones([]int{1}).Expand(shape...) })
		try(name+" meta", func() { _ = Ones(shape, TensorOptions{Device: Meta}).String() })
	}
	for _, d := range []DType{0, -1, 99, math.MaxInt8} {
		try(fmt.Sprint("dtype ", int(d)), func() {
			_ = d.String()
			Ones([]int{1}, TensorOptions{DType: d})
		})
		try(fmt.Sprint("to dtype ", int(d)), func() { Ones([]int{1}).ToDType(d) })
	}
	for name, make := range tensors {
		for method, fn := range map[string]func(x *Tensor){
			"String": func(x *Tensor) { _ = x.String() }, "Shape": func(x *Tensor) { x.Shape() }, "Stride": func(x *Tensor) { x.Stride() },
			"Item": func(x *Tensor) { Item[float32](x) }, "ToSlice": func(x *Tensor) {
				if x.Numel() < 1<<30 {
					ToSlice[complex128](x)
				}
			},
			"Data": func(x *Tensor) { Data[float32](x) }, "Bytes": func(x *Tensor) { x.Bytes() }, "DataPtr": func(x *Tensor) { x.DataPtr() },
			"Backward": func(x *Tensor) { x.Backward() }, "Grad": func(x *Tensor) { x.Grad() }, "SetGrad": func(x *Tensor) { x.SetGrad(x) },
			"SetData": func(x *Tensor) { x.SetData(Ones([]int{5})) }, "data of": func(x *Tensor) { Ones([]int{5}).SetData(x) },
			"SetRequiresGrad": func(x *Tensor) { x.SetRequiresGrad(true) }, "RegisterHook": func(x *Tensor) { x.RegisterHook(nil) },
			"Keep": func(x *Tensor) { Keep(x); x.Close() }, "Close": func(x *Tensor) { x.Close(); x.Close() },
			"To": func(x *Tensor) { x.To(CUDA(99)) }, "To zero": func(x *Tensor) { x.To(Device{}) }, "GradFn": func(x *Tensor) { x.GradFn() },
			"SetRNGState": func(x *Tensor) { SetRNGState(x) }, "StorageID": func(x *Tensor) { x.StorageID(); x.StorageBytes() },
			"Grad of": func(x *Tensor) { Grad([]*Tensor{x}, []*Tensor{x, nil}) }, "Grad none": func(x *Tensor) { Grad(nil, []*Tensor{x}) },
			"Backward with": func(x *Tensor) { Backward([]*Tensor{x}, BackwardOptions{Gradients: []*Tensor{x, x}}) },
			"Cat":           func(x *Tensor) { Cat([]*Tensor{x, nil}) }, "MatMul": func(x *Tensor) { x.MatMul(x) }, "index": func(x *Tensor) { Ones([]int{3}).At(x) },
			"ScopeOf": func(x *Tensor) { ScopeOf(func() []*Tensor { return []*Tensor{x, x, nil} }) },
		} {
			if name == "expanded" && (method == "Cat" || method == "MatMul" || method == "Backward with") {
				continue // would compute for hours
			}
			try(name+" "+method, func() { fn(make()) })
		}
		for _, n := range ints {
			try(fmt.Sprint(name, " size ", n), func() { make().Size(n) })
			try(fmt.Sprint(name, " at ", n), func() { make().At(n) })
			try(fmt.Sprint(name, " span ", n), func() { make().At(Between(n, -n).By(n), Ellipsis, n) })
			try(fmt.Sprint(name, " set at ", n), func() {
				if x := make(); x == nil || x.Closed() || x.StorageBytes() > 4 {
					x.SetAt(n, From(n))
				}
			})
			try(fmt.Sprint(name, " split ", n), func() {
				if x := make(); x.Closed() || x.Numel() < 100 {
					x.Split(n)
				}
			})
		}
		for _, v := range odd {
			try(fmt.Sprintf("%s at %T", name, v), func() { make().At(v, v) })
			try(fmt.Sprintf("%s set %T", name, v), func() {
				if x := make(); x == nil || x.Closed() || x.StorageBytes() > 4 {
					x.SetAt(v, 0)
				}
			})
			try(fmt.Sprintf("%s call %T", name, v), func() { Call("aten::add.Tensor", make(), v, v) })
		}
	}
	for _, v := range odd {
		try(fmt.Sprintf("ScopeOf %T", v), func() { ScopeOf(func() any { return v }) })
		try(fmt.Sprintf("call %T", v), func() { Call("aten::ones", v, v, v, v, v) })
	}
	for _, name := range []string{"", ".", "::", "aten::", "aten::add.", "aten::add.Tensor.x", "\x00", "aten::add\x00x"} {
		try("operator "+name, func() { Call(name, 1) })
	}
	for _, n := range ints {
		if n < 1<<16 {
			try(fmt.Sprint("threads ", n), func() {
				defer SetNumThreads(NumThreads())
				SetNumThreads(n)
			})
		}
	}
	var none *Generator
	try("nil generator", func() { none.State() })
	try("nil generator", func() { none.SetState(Ones([]int{1})) })
	try("generator", func() { NewGenerator(Device{Type: 77}, 1) })
	try("nil function", func() { Keep(nil, nil) })
	require.Equal(t, before, LiveTensors())
	t.Logf("%d calls", calls)
}
