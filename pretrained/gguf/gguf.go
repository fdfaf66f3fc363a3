// Package gguf reads and writes GGUF, the file format of llama.cpp: metadata, and tensors whose elements may be packed in
// blocks of few bits each.
//
// [Open] checks the whole header before it returns, in bounded memory, and only by reads whose failure is an error: versions 2
// and 3, with llama.cpp's rules and limits. A [File] lists its tensors in PyTorch's order of dimensions. Those of plain
// elements can be read and mapped as they are; those of blocks are read as float32 ([File.ReadPart] decodes what it needs)
// or as they are stored ([File.ReadStored]). [File.Metadata] has typed getters. [WriteFile] writes a file.
//
// Errors are *[Error]; errors.Is finds their class (ErrTruncated, ErrBadHeader, …).
package gguf

import (
	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/ggml"
	"github.com/torchgo/torchgo/internal/weights"
)

// Error says what is wrong with a file: class, file, tensor, offset, what was expected and found, and what helps.
type Error = fileerr.Error

// The classes of errors, for errors.Is. They are the same values in all packages that read model files.
var (
	ErrTruncated          = fileerr.ErrTruncated          // the file ends before what its header promises
	ErrBadMagic           = fileerr.ErrBadMagic           // another format
	ErrUnsupportedVersion = fileerr.ErrUnsupportedVersion // neither version 2 nor 3
	ErrHeaderLimit        = fileerr.ErrHeaderLimit        // metadata and tensor list over MaxHeaderBytes
	ErrBadHeader          = fileerr.ErrBadHeader          // unknown types of values, bad names, bad alignment
	ErrBadDType           = fileerr.ErrBadDType           // no such tensor type
	ErrBadShape           = fileerr.ErrBadShape           // too many, negative or overflowing dimensions; rows that blocks don't divide
	ErrBadOffset          = fileerr.ErrBadOffset          // tensors overlap, leave a hole, or are not in order
	ErrDuplicate          = fileerr.ErrDuplicate          // a key or name twice
	ErrLimit              = fileerr.ErrLimit              // too many, too long
	ErrBadValue           = fileerr.ErrBadValue           // a bool that is neither 0 nor 1
	ErrBadConfig          = fileerr.ErrBadConfig          // metadata without a key, or with another type of value
	ErrSizeMismatch       = fileerr.ErrSizeMismatch       // a buffer or source of another size than the tensor
	ErrBounds             = fileerr.ErrBounds             // a part outside of a tensor
	ErrMissingTensor      = fileerr.ErrMissingTensor      // no such tensor
	ErrNotRegular         = fileerr.ErrNotRegular         // a folder, device, FIFO, socket or link loop
	ErrChanged            = fileerr.ErrChanged            // somebody wrote to the file since Open
	ErrUnsupported        = fileerr.ErrUnsupported        // big-endian files, nested arrays, types that can't be decoded or written
)

// Limits of what is accepted.
const (
	MaxHeaderBytes   = 100_000_000 // metadata and list of tensors
	MaxTensors       = 1_000_000
	MaxKeys          = 65_536
	MaxKeyBytes      = 65_535  // the format's own limit
	MaxNameBytes     = 63      // of a tensor; llama.cpp's limit
	MaxDims          = 4       // llama.cpp's
	MaxAlignment     = 1 << 20 // of the tensors' data
	DefaultVersion   = 3       // of what is written
	defaultAlignment = 32
)

const magic = "GGUF"

// TensorInfo describes a tensor as it is read; of a type of blocks: as float32.
type TensorInfo = weights.TensorInfo

// Type is a tensor's type in the file, numbered and named as ggml does.
type Type = ggml.Type

// The types that WriteFile makes from others. ParseType finds every type by its name.
const (
	F32  = ggml.F32
	F16  = ggml.F16
	BF16 = ggml.BF16
	Q8_0 = ggml.Q8_0
	Q4_0 = ggml.Q4_0
	Q4_1 = ggml.Q4_1
)

// ParseType finds a type by its name, in upper or lower case.
func ParseType(name string) (Type, error) { return ggml.ParseType(name) }
