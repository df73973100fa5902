//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package keyfile

import (
	"os"
	"syscall"
)

// giveUp closes a file whose opening bbolt has not finished. If it panicked, the file is
// still mapped, and to close it would leave it locked.
func giveUp(file *os.File) {
	syscall.Flock(int(file.Fd()), syscall.LOCK_UN) //nolint:errcheck // it has been closed already, then.
	file.Close()                                   //nolint:errcheck // nothing was written.
}
