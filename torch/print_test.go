package torch_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/torch"
)

// Tensors print as in Python, to the letter: the cases of tools/printref.
func TestPrint(t *testing.T) {
	require.NoError(t, torch.Load())
	text, err := os.ReadFile(filepath.Join(testdata.Open(t, "print"), "print.json"))
	require.NoError(t, err)
	var cases []struct {
		Name         string   `json:"name"`
		DType        string   `json:"dtype"`
		Shape        []int    `json:"shape"`
		Data         []byte   `json:"data"`
		Stride       []int    `json:"stride"`
		Device       string   `json:"device"`
		RequiresGrad bool     `json:"requires_grad"`
		Apply        []string `json:"apply"`
		Text         string   `json:"text"`
	}
	require.NoError(t, json.Unmarshal(text, &cases))
	require.Greater(t, len(cases), 300)
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			torch.Scope(func() {
				var x *torch.Tensor
				if c.Device == "meta" {
					dtype, err := torch.ParseDType(c.DType)
					require.NoError(t, err)
					x = torch.Call("aten::empty.memory_format", c.Shape, dtype, nil, torch.Meta, nil, nil)[0].(*torch.Tensor)
				} else {
					ref := &opinfoRef{data: map[string][]byte{c.DType: c.Data}}
					x = ref.tensor(&opinfoTensor{DType: c.DType, Shape: c.Shape, Stride: c.Stride})
				}
				x.SetRequiresGrad(c.RequiresGrad)
				for _, op := range c.Apply {
					args := []any{x}
					if op == "aten::clone" || op == "aten::sum" {
						args = append(args, nil) // memory format, dtype
					}
					x = torch.Call(op, args...)[0].(*torch.Tensor)
				}
				require.Equal(t, c.Text, x.String())
			})
		})
	}
}

// fmt prints tensors that have no elements to show, too.
func TestPrintWithoutElements(t *testing.T) {
	require.NoError(t, torch.Load())
	torch.Scope(func() {
		var none *torch.Tensor
		require.Equal(t, "tensor(nil)", none.String())

		x := torch.FromSlice([]float32{1, 0, 0, 2}, 2, 2)
		sparse := torch.Call("aten::to_sparse", x, nil, nil, nil)[0].(*torch.Tensor)
		require.Equal(t, "tensor(..., size=(2, 2), layout=torch.sparse_coo)", sparse.String())

		x.Close()
		require.Equal(t, "tensor(closed)", fmt.Sprint(x))
	})
}
