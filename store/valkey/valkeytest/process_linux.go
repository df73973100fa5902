package valkeytest

import (
	"os/exec"
	"syscall"
)

// endWithParent keeps a server from outliving a test binary that was killed.
func endWithParent(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
