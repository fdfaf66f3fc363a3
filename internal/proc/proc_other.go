//go:build !linux

package proc

import "syscall"

func endWithParent(*syscall.SysProcAttr) {}
