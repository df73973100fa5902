//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package keyfile

import "os"

// giveUp closes a file whose opening bbolt has not finished.
func giveUp(file *os.File) {
	file.Close() //nolint:errcheck // nothing was written.
}
