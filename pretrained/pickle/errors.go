package pickle

import "github.com/torchgo/torchgo/internal/fileerr"

// Error says what is wrong with a file: class, file, tensor, offset, what was expected and found, and what helps.
type Error = fileerr.Error

// The classes of errors, for errors.Is. They are the same values in all packages that read model files.
var (
	ErrTruncated          = fileerr.ErrTruncated          // the file ends before what it promises
	ErrBadMagic           = fileerr.ErrBadMagic           // another format: a git-lfs pointer, HTML, a plain pickle, …
	ErrUnsupportedVersion = fileerr.ErrUnsupportedVersion // a version of the format or of pickle that nobody wrote
	ErrBadHeader          = fileerr.ErrBadHeader          // byteorder, members of a tar
	ErrBadShape           = fileerr.ErrBadShape           // negative or overflowing dimensions
	ErrDuplicate          = fileerr.ErrDuplicate          // a record, storage or tensor's name twice
	ErrChecksum           = fileerr.ErrChecksum           // a record's CRC
	ErrBadZip             = fileerr.ErrBadZip             // parts of the archive contradict each other
	ErrLimit              = fileerr.ErrLimit              // more or deeper than any checkpoint is
	ErrBadPickle          = fileerr.ErrBadPickle          // the pickle is malformed, or isn't a checkpoint
	ErrForbiddenOp        = fileerr.ErrForbiddenOp        // an opcode that is not on the list
	ErrForbiddenGlobal    = fileerr.ErrForbiddenGlobal    // a class or function that is not on the list
	ErrBadArgs            = fileerr.ErrBadArgs            // a known function with arguments that it can't have
	ErrBadStorage         = fileerr.ErrBadStorage         // a storage that is missing or has another size
	ErrBounds             = fileerr.ErrBounds             // a view that leaves its storage
	ErrPath               = fileerr.ErrPath               // a record named like a path out of the archive
	ErrNotRegular         = fileerr.ErrNotRegular         // a folder, device, FIFO, socket, or a link in a tar
	ErrUnsupported        = fileerr.ErrUnsupported        // valid, but refused: sparse, quantized, TorchScript, …
	ErrBadValue           = fileerr.ErrBadValue           // a BOOL that is neither 0 nor 1
	ErrMissingTensor      = fileerr.ErrMissingTensor      // no such tensor
)
