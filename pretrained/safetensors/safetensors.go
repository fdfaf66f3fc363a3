// Package safetensors reads and writes the safetensors format: single files, and checkpoints of several
// files with an index, as transformers makes them.
//
// A file is the length of the header (8 bytes, little-endian), the header (JSON) and the tensors' bytes,
// without a gap. [Open] checks all of that before it returns, in bounded memory, and only by reads whose
// failure is an error; so what a [File] says about its tensors is true as long as nobody changes the file.
// [File.ReadTensor] copies a tensor; [File.Map] gives its bytes without a copy.
//
// Elements are little-endian, and no byte is swapped: on a big-endian host Open returns ErrUnsupported.
//
// Errors are *[Error]; errors.Is finds their class (ErrTruncated, ErrBadHeader, …).
package safetensors

import (
	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/weights"
)

// Error says what is wrong with a file: class, file, tensor, offset, what was expected and found, and
// what helps.
type Error = fileerr.Error

// The classes of errors, for errors.Is. They are the same values in all packages that read model files.
var (
	ErrTruncated     = fileerr.ErrTruncated     // the file ends before what its header promises
	ErrBadMagic      = fileerr.ErrBadMagic      // another format: a git-lfs pointer, HTML, zip, …
	ErrHeaderLimit   = fileerr.ErrHeaderLimit   // header over MaxHeaderBytes
	ErrBadHeader     = fileerr.ErrBadHeader     // JSON syntax, missing fields, wrong types
	ErrBadDType      = fileerr.ErrBadDType      // no such dtype
	ErrBadShape      = fileerr.ErrBadShape      // negative or overflowing dimensions
	ErrBadOffset     = fileerr.ErrBadOffset     // tensors overlap, leave a hole, or bytes follow them
	ErrSizeMismatch  = fileerr.ErrSizeMismatch  // the range does not hold the shape
	ErrDuplicate     = fileerr.ErrDuplicate     // a name twice
	ErrLimit         = fileerr.ErrLimit         // too many tensors, too deep JSON
	ErrPath          = fileerr.ErrPath          // an index names a file outside its folder
	ErrMissingShard  = fileerr.ErrMissingShard  // a file of weights is not there
	ErrMissingTensor = fileerr.ErrMissingTensor // no such tensor, or an index promises one that its shard lacks
	ErrBadIndex      = fileerr.ErrBadIndex      // index syntax or types
	ErrConflict      = fileerr.ErrConflict      // shards and index disagree
	ErrNotRegular    = fileerr.ErrNotRegular    // a folder, device, FIFO, socket or link loop
	ErrBadValue      = fileerr.ErrBadValue      // a BOOL that is neither 0 nor 1
	ErrChanged       = fileerr.ErrChanged       // somebody wrote to the file since Open
	ErrUnsupported   = fileerr.ErrUnsupported   // this host can't do it
	ErrChecksum      = fileerr.ErrChecksum      // a compressed tensor is damaged

	ErrUnsupportedVersion = fileerr.ErrUnsupportedVersion // compressed by a later version
)

// Limits of what is accepted.
const (
	MaxHeaderBytes = 100_000_000 // the format's own limit
	MaxTensors     = 1_000_000
	maxIndexBytes  = 64 << 20
)

const metadataKey = "__metadata__"

// TensorInfo describes a tensor in a file.
type TensorInfo = weights.TensorInfo

// Mapping is a file in memory.
type Mapping = weights.Mapping
