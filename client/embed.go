// Package client holds what a page loads from the gate: the scripts of client/dist, which
// client/build.mjs makes from client/src. A test holds the two together.
package client

import _ "embed"

// File is a script as the gate serves it.
type File struct {
	// Name is the last segment of its path, below the gate's own prefix.
	Name        string
	ContentType string
	Body        []byte
}

const javaScript = "text/javascript; charset=utf-8"

var (
	//go:embed dist/moat.js
	script []byte
	//go:embed dist/client.mjs
	module []byte
	//go:embed dist/solver.js
	solver []byte
)

// Files returns the scripts. The first two import the solver from beside themselves, when
// there is a challenge; from another origin, a module is imported only if the answer has
// Access-Control-Allow-Origin.
func Files() []File {
	return []File{
		{"client.js", javaScript, script},
		{"client.mjs", javaScript, module},
		{"solver.js", javaScript, solver},
	}
}
