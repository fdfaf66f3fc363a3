package cgo

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"sync"
)

// ShimFS holds the sources of the shim library, below the folder "shim", so that a program
// built from the module cache can compile them (`torchgo setup`).
//
// It lives here because the Go tool refuses a package whose folder holds C++ but no cgo.
//
//go:embed shim
var ShimFS embed.FS

// ShimHash is the SHA-256 (first 16 hex digits) of the shim's sources, names included.
// It names the folder of the compiled shim, so that programs of different versions don't meet.
var ShimHash = sync.OnceValue(func() string {
	h := sha256.New()
	err := fs.WalkDir(ShimFS, "shim", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := ShimFS.ReadFile(path)
		if err != nil {
			return err
		}
		h.Write([]byte(path))
		h.Write([]byte{0})
		h.Write(data)
		return nil
	})
	if err != nil { // an embedded file that can't be read
		panic(err)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
})
