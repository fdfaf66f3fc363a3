package proc

import "syscall"

// endWithParent has the kernel end the program if the caller is killed.
func endWithParent(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGKILL }
