// Command torchgo sets up libtorch and runs PyTorch checkpoints. Each command is in a file of its
// own name.
package main

import (
	"os"
	"runtime"

	"github.com/torchgo/torchgo/cmd/torchgo/internal/cli"
)

func main() {
	// The main goroutine computes, and libgomp keeps a pool of threads for each thread that does.
	runtime.LockOSThread()
	os.Exit(cli.Main())
}
