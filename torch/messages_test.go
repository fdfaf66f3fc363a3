package torch

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
)

// pythonKinds are the kinds that Python's exceptions are here. A CPU allocation that fails is a plain
// RuntimeError in Python.
var pythonKinds = map[string]error{
	"RuntimeError": ErrRuntime, "IndexError": ErrIndex, "ValueError": ErrValue, "TypeError": ErrType,
	"NotImplementedError": ErrNotImplemented, "_LinAlgError": ErrLinAlg,
}

// argument is a recorded argument as Call takes it; shapes collects those of its tensors.
func argument(t *testing.T, raw json.RawMessage, shapes *[]Shape) any {
	var object struct {
		Tensor  []int
		DType   string
		Tensors [][]int
		Float   *float64
	}
	if raw[0] == '{' {
		require.NoError(t, json.Unmarshal(raw, &object))
		switch {
		case object.Float != nil:
			return *object.Float
		case object.Tensors != nil:
			list := []*Tensor{}
			for _, shape := range object.Tensors {
				*shapes = append(*shapes, shape)
				list = append(list, Ones(shape))
			}
			return list
		}
		for d := range DType(64) {
			if d.valid() && strings.TrimPrefix(d.String(), "torch.") == object.DType {
				*shapes = append(*shapes, object.Tensor)
				return Ones(object.Tensor, TensorOptions{DType: d})
			}
		}
		t.Fatalf("dtype %s", object.DType)
	}
	if raw[0] == '[' {
		list := []int{}
		require.NoError(t, json.Unmarshal(raw, &list))
		return list
	}
	var value any
	require.NoError(t, json.Unmarshal(raw, &value))
	if n, ok := value.(float64); ok {
		return int(n)
	}
	return value
}

// Errors say what Python's exceptions say, and which operator and shapes it was.
func TestMessagesArePythons(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(testdata.Open(t, "errors"), "errors.json"))
	require.NoError(t, err)
	var recorded struct {
		Calls []struct {
			Op            string
			Args          []json.RawMessage
			Type, Message string
		}
	}
	require.NoError(t, json.Unmarshal(data, &recorded))
	require.Greater(t, len(recorded.Calls), 80)
	for _, c := range recorded.Calls {
		Scope(func() {
			args, shapes := []any{}, []Shape(nil)
			for _, a := range c.Args {
				args = append(args, argument(t, a, &shapes))
			}
			err := TryDo(func() { Call(c.Op, args...) })
			var e *Error
			require.ErrorAs(t, err, &e, c.Op)
			kind := pythonKinds[c.Type]
			if strings.Contains(c.Message, "can't allocate memory") {
				kind = ErrOutOfMemory
			}
			first, _, _ := strings.Cut(strings.TrimSpace(e.Message), "\n")
			require.Equal(t, c.Message, first, c.Op)
			require.ErrorIs(t, err, kind, "%s: %s", c.Op, c.Message)
			base, _, _ := strings.Cut(strings.TrimPrefix(c.Op, "aten::"), ".")
			require.Equal(t, base, e.Op)
			require.Equal(t, shapes, e.Shapes, c.Op)
			require.True(t, strings.HasPrefix(err.Error(), base+": "+first), err.Error())
			require.NotContains(t, err.Error(), "\n")
		})
	}
}
