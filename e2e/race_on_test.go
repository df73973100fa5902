//go:build race

package e2e

// raceDetector says that these tests run with the race detector, so the processes that
// they start do too.
const raceDetector = true
