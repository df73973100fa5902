package explain

import _ "embed" // the published schema

//go:embed explain.schema.json
var schema string

// Schema returns the JSON Schema (draft 2020-12) of what moat explain --json prints: an
// object with a list of explanations.
func Schema() []byte { return []byte(schema) }
