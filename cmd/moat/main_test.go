package main

import (
	"net"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"moat": main})
}

// The scripts in testdata/script are the command as its users see it.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// ports NAME... sets variables to addresses that were free just now.
			"ports": func(ts *testscript.TestScript, _ bool, names []string) {
				for _, n := range names {
					l, err := net.Listen("tcp", "127.0.0.1:0")
					ts.Check(err)
					defer l.Close()
					ts.Setenv(n, l.Addr().String())
				}
			},
			// waitfor URL STATUS waits for a server.
			"waitfor": waitFor,
			// replace FILE OLD NEW edits a file.
			"replace": replace,
			// exitcode CODE PROGRAM ARGUMENT... runs a program that must end with that code.
			"exitcode": exitsWith,
			// keyid NAME FILE sets a variable to the id of the API key in a file.
			"keyid": keyID,
			// backend NAME starts a server, and sets NAME to its address.
			"backend": backend,
			// asked REQUEST... fails unless the backend was asked just this since last time.
			"asked": backendAsked,
			// validate FILE fails if the JSON in it is not of the published form.
			"validate": validate,
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", os.TempDir())
			return nil
		},
	})
}
