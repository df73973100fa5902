// Package config reads moat.yaml and turns it into what package gateway takes: one
// file, one pass, and all of its faults at once, each with its place, the value, the
// reason and, where it can be told, what was probably meant.
//
// A file goes through two steps. decode.go lays the YAML tree over the structs of
// file.go, with what their tags say: names, defaults, bounds. compile.go and the files
// beside it judge what the fields mean together. Only if neither found a fault is there
// a result, so a faulty file never starts a gate and never replaces a running one.
//
// The structs of file.go are the only description of the format. The decoder, the JSON
// Schema and docs/config.md all follow from them.
//
// Whoever can write the file, or set the environment variables and write the files that
// it refers to, decides everything here. Parse is nevertheless bounded for any input, so
// that a mistake costs a message and not a machine.
package config
