package torch

import (
	"bufio"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/cgo"
)

// excludedSchemas are the operators of the dispatcher that have no generated function.
func excludedSchemas(t *testing.T) (list []string) {
	generated := map[string]bool{}
	for _, o := range generatedOps(t) {
		generated[o.schema] = true
	}
	f, err := os.Open("../third_party/operators-2.15.0.txt")
	require.NoError(t, err)
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		schema, _, _ := strings.Cut(sc.Text(), "\t")
		if !strings.HasPrefix(schema, "#") && !generated[schema] {
			list = append(list, schema)
		}
	}
	return list
}

var (
	noGoForm = regexp.MustCompile(`str\[\]\[\]|\.\.\.`)
	noKernel = regexp.MustCompile(`^(static_runtime|inductor_prims)::`)
)

// sampleValue is some value for an argument, unless it may be None.
func sampleValue(t *testing.T, a schemaArg) any {
	switch {
	case a.optional:
		return nil
	case a.base == "Tensor" && a.list:
		return []*Tensor{FromSlice([]int64{1, 2})}
	case a.base == "Tensor", a.base == "Storage", a.base == "Any":
		return FromSlice([]int64{1, 2})
	case a.base == "int" && a.list:
		return []int{1}
	case a.base == "float" && a.list:
		return []float64{1}
	}
	value, ok := map[string]any{
		"int": 0, "float": 1.0, "Scalar": 3, "bool": false, "str": "a", "Stream": CurrentStream(CPU), "ScalarType": Int64, "Device": CPU, "MemoryFormat": ContiguousFormat,
	}[a.base]
	require.True(t, ok, "%v", a)
	return value
}

// What has no typed function can be called by name, unless its values have no Go form or there is no
// kernel; those are typed errors.
func TestCallReachesExcluded(t *testing.T) {
	require.NoError(t, Load())
	if cgo.Version() != "2.15.0" {
		t.Skip("the list is that of libtorch 2.15.0")
	}
	reached, ran, refused := 0, 0, 0
	for _, schema := range excludedSchemas(t) {
		name, rest, _ := strings.Cut(schema, "(")
		Scope(func() {
			var args []any
			impossible := noGoForm.MatchString(rest) || noKernel.MatchString(name)
			if !impossible {
				for _, a := range schemaArgs(t, schema) {
					args = append(args, sampleValue(t, a))
				}
			}
			results, err := Try(func() []any { return Call(name, args...) })
			switch {
			case impossible:
				require.Error(t, err, schema)
				var e *Error
				require.ErrorAs(t, err, &e, schema)
				refused++
			case err == nil:
				require.Equal(t, !strings.HasSuffix(schema, "-> ()"), len(results) > 0, schema)
				reached, ran = reached+1, ran+1
			default: // the operator itself refused these values
				require.NotErrorIs(t, err, ErrNoOperator, schema)
				require.NotErrorIs(t, err, ErrArgument, schema)
				t.Logf("%s: %v", name, err)
				reached++
			}
		})
	}
	require.Equal(t, 118, reached+refused)
	require.Equal(t, 95, reached)

	// Those on quantized tensors, and the one whose result is a scheme.
	Scope(func() {
		x := FromSlice([]float32{1, 2})
		const quint8 = 13 // of c10::ScalarType
		q := Call("aten::quantize_per_tensor", x, 0.5, 1, quint8)[0].(*Tensor)
		require.Equal(t, []any{0}, Call("aten::qscheme", q), "torch.per_tensor_affine")
		y := Call("quantized::add.Scalar", q, 1)[0].(*Tensor)
		require.InDeltaSlice(t, []float32{2, 3}, ToSlice[float32](y.Dequantize()), 0.02, "to the step of the new scale")
	})
	t.Logf("%d reached, %d of them gave a result, %d refused", reached, ran, refused)
}
