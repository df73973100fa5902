package agree

import (
	"os/exec"
	"syscall"
)

// endWithParent keeps a program from outliving a test binary that was killed.
func endWithParent(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
