package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/moat-gateway/moat/guard/identity/apikey"
)

// waitFor URL STATUS [HEADER:VALUE | ~TEXT]... waits until URL answers with STATUS and
// every TEXT, for at most 30 seconds. The answer is left in the file "answer".
func waitFor(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: waitfor URL STATUS [HEADER:VALUE | ~TEXT]...")
	}
	last := ""
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		r, err := http.NewRequest(http.MethodGet, args[0], nil)
		ts.Check(err)
		var texts []string
		for _, a := range args[2:] {
			if text, ok := strings.CutPrefix(a, "~"); ok {
				texts = append(texts, text)
			} else if k, v, ok := strings.Cut(a, ":"); ok {
				r.Header.Set(k, v)
			}
		}
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			last = err.Error()
			continue
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		ts.Check(err)
		last = fmt.Sprint(res.StatusCode)
		if last == args[1] && !slices.ContainsFunc(texts, func(t string) bool { return !strings.Contains(string(b), t) }) {
			ts.Check(os.WriteFile(ts.MkAbs("answer"), b, 0o644))
			return
		}
	}
	ts.Fatalf("%s: %s, want %s", args[0], last, args[1])
}

// replace FILE OLD NEW edits a file in place, as an operator would.
func replace(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: replace FILE OLD NEW")
	}
	b := ts.ReadFile(args[0])
	if !strings.Contains(b, args[1]) {
		ts.Fatalf("%s does not contain %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.ReplaceAll(b, args[1], args[2])), 0o644))
}

// exitsWith CODE PROGRAM ARGUMENT... is exec, for programs whose exit code says more than
// success and failure.
func exitsWith(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: exitcode CODE PROGRAM ARGUMENT...")
	}
	code := 0
	err := ts.Exec(args[1], args[2:]...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got := strconv.Itoa(code); got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

// keyID NAME FILE sets a variable to the id of the API key that is all there is in a file, and
// NAME_KEY to the key.
func keyID(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: keyid NAME FILE")
	}
	text := strings.TrimSuffix(ts.ReadFile(args[1]), "\n")
	id, ok := apikey.ID(text)
	if !ok {
		ts.Fatalf("%s does not hold a key, and nothing else", args[1])
	}
	ts.Setenv(args[0], id)
	ts.Setenv(args[0]+"_KEY", text)
}
