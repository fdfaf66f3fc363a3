package safetensors

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkHeader parses the header of 100,000 tensors.
func BenchmarkHeader(b *testing.B) {
	var text strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&text, `,"model.layers.%d.weight":{"dtype":"F32","shape":[0,4096],"data_offsets":[0,0]}`, i)
	}
	header := []byte("{" + text.String()[1:] + "}")
	b.SetBytes(int64(len(header)))
	for b.Loop() {
		h, err := parseHeader(header)
		if err == nil {
			err = h.validate(0, 0)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
