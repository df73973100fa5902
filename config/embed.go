package config

import (
	"embed"
	"strings"
)

//go:embed moat.schema.json
var schema string

// Schema returns the JSON Schema of moat.yaml (draft 2020-12), for editors.
func Schema() []byte { return []byte(schema) }

//go:embed starters/*.yaml
var starters embed.FS

// Starters returns the names of the starter files, in the order of the alphabet.
func Starters() []string {
	entries, _ := starters.ReadDir("starters") // it is embedded
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = strings.TrimSuffix(e.Name(), ".yaml")
	}
	return names
}

// Starter returns the commented configuration file of that name, to begin from.
func Starter(name string) ([]byte, bool) {
	b, err := starters.ReadFile("starters/" + name + ".yaml")
	return b, err == nil
}
