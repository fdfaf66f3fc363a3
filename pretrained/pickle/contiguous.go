package pickle

import (
	"fmt"
	"io"
	"slices"

	"github.com/torchgo/torchgo/internal/weights"
)

// Contiguous is a tensor on the CPU that has a storage of its own: its elements in C order are the bytes of data, of
// which info.Bytes are read. It is ErrUnsupported if PyTorch has no such dtype.
func Contiguous(info weights.TensorInfo, data io.ReaderAt) (*Tensor, error) {
	t := &Tensor{Shape: slices.Clone(info.Shape), Strides: make([]int, len(info.Shape))}
	for name, d := range dtypes {
		if d.code == info.DType {
			t.DType = name
		}
	}
	last := len(t.Shape) - 1
	if info.DType == weights.F4 && last >= 0 && t.Shape[last]%2 == 0 {
		t.Shape[last] /= 2
	} else if t.DType == "" || info.DType.Bits()%8 != 0 {
		return nil, &Error{Class: ErrUnsupported, Tensor: info.Name, Detail: "PyTorch has no dtype for it", Actual: fmt.Sprintf("%v of %v", info.Shape, info.DType)}
	}
	t.Storage = &Storage{DType: t.DType, Bytes: int64(info.Bytes), Location: "cpu", Data: data}
	if dtypes[t.DType].storage == "" {
		t.Storage.DType = ""
	}
	for d, stride := last, 1; d >= 0; d-- {
		t.Strides[d] = stride
		stride *= max(t.Shape[d], 1)
	}
	return t, nil
}
