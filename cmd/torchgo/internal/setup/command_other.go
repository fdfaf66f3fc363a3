//go:build !linux

package setup

import "syscall"

func endWithParent(*syscall.SysProcAttr) {}
