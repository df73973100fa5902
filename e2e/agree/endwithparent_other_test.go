//go:build !linux

package agree

import "os/exec"

// endWithParent does nothing here: only Linux can end a child with its parent.
func endWithParent(*exec.Cmd) {}
