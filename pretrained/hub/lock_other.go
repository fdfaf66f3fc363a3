//go:build !unix

package hub

import (
	"errors"
	"os"
)

// tryFlock says that there are no locks: downloads are right without, and may be done twice.
func tryFlock(*os.File) (bool, error) { return false, errors.ErrUnsupported }

func freeSpace(string) int64 { return -1 }
