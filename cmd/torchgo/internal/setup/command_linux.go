package setup

import "syscall"

// endWithParent has the kernel end the program if setup is killed.
func endWithParent(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGKILL }
