// Command torchgo sets up libtorch and runs PyTorch checkpoints. Each command is in a file of its
// own name.
package main

import (
	"os"

	"github.com/torchgo/torchgo/cmd/torchgo/internal/cli"
)

func main() { os.Exit(cli.Main()) }
