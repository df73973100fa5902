//go:build race && !interleave

package memory

// raceDetector says that everything takes ten times as long.
const raceDetector = true
