// Package ggml reads and writes ggml's block types, the contents of tensors in GGUF files: what the
// Python package gguf 0.19 computes, to the bit.
package ggml

import (
	"fmt"
	"math"
	"strings"
)

// Type is a tensor's element type, numbered as in GGUF files.
type Type uint32

// The types of ggml. Ids that are missing were withdrawn from it.
const (
	F32     Type = 0
	F16     Type = 1
	Q4_0    Type = 2
	Q4_1    Type = 3
	Q5_0    Type = 6
	Q5_1    Type = 7
	Q8_0    Type = 8
	Q8_1    Type = 9
	Q2_K    Type = 10
	Q3_K    Type = 11
	Q4_K    Type = 12
	Q5_K    Type = 13
	Q6_K    Type = 14
	Q8_K    Type = 15
	IQ2_XXS Type = 16
	IQ2_XS  Type = 17
	IQ3_XXS Type = 18
	IQ1_S   Type = 19
	IQ4_NL  Type = 20
	IQ3_S   Type = 21
	IQ2_S   Type = 22
	IQ4_XS  Type = 23
	I8      Type = 24
	I16     Type = 25
	I32     Type = 26
	I64     Type = 27
	F64     Type = 28
	IQ1_M   Type = 29
	BF16    Type = 30
	TQ1_0   Type = 34
	TQ2_0   Type = 35
	MXFP4   Type = 39
	NVFP4   Type = 40
	Q1_0    Type = 41
)

// A format is what the package knows of a type. Elements come in blocks of so many values, coded in so
// many bytes. The functions take whole blocks; they are nil where gguf has none either.
type format struct {
	name         string
	block, bytes int
	dequantize   func(dst []float32, src []byte)
	quantize     func(dst []byte, src []float32)
}

var formats = [...]format{
	F32:     {"F32", 1, 4, dequantizeF32, quantizeF32},
	F16:     {"F16", 1, 2, dequantizeF16, quantizeF16},
	Q4_0:    {"Q4_0", 32, 18, dequantizeQ4_0, quantizeQ4_0},
	Q4_1:    {"Q4_1", 32, 20, dequantizeQ4_1, quantizeQ4_1},
	Q5_0:    {"Q5_0", 32, 22, dequantizeQ5_0, quantizeQ5_0},
	Q5_1:    {"Q5_1", 32, 24, dequantizeQ5_1, quantizeQ5_1},
	Q8_0:    {"Q8_0", 32, 34, dequantizeQ8_0, quantizeQ8_0},
	Q8_1:    {"Q8_1", 32, 40, nil, nil},
	Q2_K:    {"Q2_K", 256, 84, dequantizeQ2_K, nil},
	Q3_K:    {"Q3_K", 256, 110, dequantizeQ3_K, nil},
	Q4_K:    {"Q4_K", 256, 144, dequantizeQ4_K, nil},
	Q5_K:    {"Q5_K", 256, 176, dequantizeQ5_K, nil},
	Q6_K:    {"Q6_K", 256, 210, dequantizeQ6_K, nil},
	Q8_K:    {"Q8_K", 256, 292, nil, nil},
	IQ2_XXS: {"IQ2_XXS", 256, 66, dequantizeIQ2_XXS, nil},
	IQ2_XS:  {"IQ2_XS", 256, 74, dequantizeIQ2_XS, nil},
	IQ3_XXS: {"IQ3_XXS", 256, 98, dequantizeIQ3_XXS, nil},
	IQ1_S:   {"IQ1_S", 256, 50, dequantizeIQ1_S, nil},
	IQ4_NL:  {"IQ4_NL", 32, 18, dequantizeIQ4_NL, nil},
	IQ3_S:   {"IQ3_S", 256, 110, dequantizeIQ3_S, nil},
	IQ2_S:   {"IQ2_S", 256, 82, dequantizeIQ2_S, nil},
	IQ4_XS:  {"IQ4_XS", 256, 136, dequantizeIQ4_XS, nil},
	I8:      {"I8", 1, 1, nil, nil},
	I16:     {"I16", 1, 2, nil, nil},
	I32:     {"I32", 1, 4, nil, nil},
	I64:     {"I64", 1, 8, nil, nil},
	F64:     {"F64", 1, 8, nil, nil},
	IQ1_M:   {"IQ1_M", 256, 56, dequantizeIQ1_M, nil},
	BF16:    {"BF16", 1, 2, dequantizeBF16, quantizeBF16},
	TQ1_0:   {"TQ1_0", 256, 54, dequantizeTQ1_0, nil},
	TQ2_0:   {"TQ2_0", 256, 66, dequantizeTQ2_0, nil},
	MXFP4:   {"MXFP4", 32, 17, dequantizeMXFP4, nil},
	NVFP4:   {"NVFP4", 64, 36, dequantizeNVFP4, nil},
	Q1_0:    {"Q1_0", 128, 18, nil, nil},
}

func (t Type) format() format {
	if uint64(t) < uint64(len(formats)) {
		return formats[t]
	}
	return format{}
}

// Types lists the types that ggml has, by id.
func Types() []Type {
	var all []Type
	for i, f := range formats {
		if f.name != "" {
			all = append(all, Type(i))
		}
	}
	return all
}

// ParseType finds a type by its name, in upper or lower case.
func ParseType(name string) (Type, error) {
	for i, f := range formats {
		if f.name != "" && strings.EqualFold(f.name, name) {
			return Type(i), nil
		}
	}
	return 0, fmt.Errorf("ggml has no type %q", name)
}

// String is ggml's name, or the number where the type is unknown.
func (t Type) String() string {
	if name := t.format().name; name != "" {
		return name
	}
	return fmt.Sprintf("type %d", uint32(t))
}

// Known tells whether ggml has the type. The methods that count give 0 where it has not.
func (t Type) Known() bool { return t.format().name != "" }

// BlockLen is how many elements a block holds; a row is a multiple of it.
func (t Type) BlockLen() int { return t.format().block }

// BlockBytes is how many bytes a block takes.
func (t Type) BlockBytes() int { return t.format().bytes }

// CanDequantize tells whether Dequantize knows the type.
func (t Type) CanDequantize() bool { return t.format().dequantize != nil }

// CanQuantize tells whether Quantize knows the type.
func (t Type) CanQuantize() bool { return t.format().quantize != nil }

// RowBytes is how many bytes a row of n elements takes. It is false where n is negative or no multiple of
// BlockLen, the type is unknown, or the bytes exceed an int64.
func (t Type) RowBytes(n int64) (int64, bool) {
	f := t.format()
	if f.block == 0 || n < 0 || n%int64(f.block) != 0 || n/int64(f.block) > math.MaxInt64/int64(f.bytes) {
		return 0, false
	}
	return n / int64(f.block) * int64(f.bytes), true
}

// Dequantize decodes the blocks of src into dst, which has room for exactly their elements. It allocates
// nothing, so goroutines may share a tensor by ranges of blocks.
func Dequantize(t Type, dst []float32, src []byte) error {
	f := t.format()
	if f.dequantize == nil {
		return fmt.Errorf("%v cannot be dequantized", t)
	}
	if err := f.fit(len(dst), len(src)); err != nil {
		return err
	}
	f.dequantize(dst, src)
	return nil
}

// Quantize codes src as the blocks of dst, which has room for exactly them, as gguf does.
func Quantize(t Type, dst []byte, src []float32) error {
	f := t.format()
	if f.quantize == nil {
		return fmt.Errorf("nothing quantizes to %v", t)
	}
	if err := f.fit(len(src), len(dst)); err != nil {
		return err
	}
	f.quantize(dst, src)
	return nil
}

func (f format) fit(elements, bytes int) error {
	if bytes%f.bytes != 0 || elements%f.block != 0 || bytes/f.bytes != elements/f.block {
		return fmt.Errorf("%s has %d bytes for %d elements: %d elements were given with %d bytes", f.name, f.bytes, f.block, elements, bytes)
	}
	return nil
}
