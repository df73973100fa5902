//go:build !race && !interleave

package memory

const raceDetector = false
