//go:build !linux

package hub

import (
	"io/fs"
	"time"
)

func accessTime(st fs.FileInfo) time.Time { return st.ModTime() }
