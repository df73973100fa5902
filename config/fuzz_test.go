package config

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v4"

	"github.com/moat-gateway/moat/gateway"
)

// lineBreak is what YAML 1.1 takes for the end of a line.
var lineBreak = regexp.MustCompile("\r\n|[\n\r\u0085\u2028\u2029]")

// Whatever the file: Parse comes back; every fault has a place within the file; and what
// has no fault is accepted by the schema and by the gateway, and its tests can be run.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*.yaml", "testdata/bad/*.yaml", "starters/*.yaml"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, name := range names {
			data, rErr := os.ReadFile(name)
			if rErr != nil {
				f.Fatal(rErr)
			}
			f.Add(data)
		}
	}
	f.Fuzz(checkFile)
}

// As FuzzParse, with any value or name in any place of a file that has no faults.
func FuzzValue(f *testing.F) {
	for i, value := range []string{
		"", "*", "null", "a b", "-1s", "1e9", "10MiB", "${env:GATE_PROOF}", "${file:token.txt}", "https://*.x.example:*", "[::1]:80", "10.0.0.0/8", "GET /{x...}",
		"GET", "x-y", "2026-01-01", "0x10", "true", "~", "<<", "dangerously_allow_public_suffix", "h2c://u@x:1/p?q#f", "\x00", "\u0085", "\xff", "a\nb",
	} {
		f.Add(uint(7*i), value, i%2 == 0)
	}
	example, err := os.ReadFile("testdata/good/everything.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, place uint, value string, quoted bool) {
		var doc yaml.Node
		if err := yaml.Load(example, &doc); err != nil {
			t.Fatal(err)
		}
		var scalars []*yaml.Node
		var walk func(n *yaml.Node)
		walk = func(n *yaml.Node) {
			for _, c := range n.Content {
				if c.Kind == yaml.ScalarNode {
					scalars = append(scalars, c)
				}
				walk(c)
			}
		}
		walk(&doc)
		n := scalars[place%uint(len(scalars))]
		if n.Value, n.Tag, n.Style = value, "", 0; quoted {
			n.Tag, n.Style = "!!str", yaml.DoubleQuotedStyle
		}
		if data, err := yaml.Dump(&doc); err == nil {
			checkFile(t, data)
		}
	})
}

func checkFile(t *testing.T, data []byte) {
	t.Helper()
	l, err := Parse("moat.yaml", data, hermetic())
	if err != nil {
		var faults Faults
		if !errors.As(err, &faults) || len(faults) == 0 || !filesOnly(l) {
			t.Fatalf("got %v and %v; want Faults, and no more than Files", l, err)
		}
		checkPlaces(t, data, faults)
		return
	}
	checkPlaces(t, data, l.Warnings)
	if err = validate(t, data); err != nil {
		t.Errorf("the schema refuses it: %v", err)
	}
	g, err := gateway.New(l.Gateway, nil)
	if err != nil {
		t.Fatalf("the gateway refuses it: %v", err)
	}
	for _, test := range l.Tests {
		test.Run(g) // any outcome but a panic is right
	}
}

func checkPlaces(t *testing.T, data []byte, faults Faults) {
	t.Helper()
	lines := lineBreak.Split(string(data), -1)
	for _, f := range faults {
		if f.Line < 1 || f.Line > len(lines)+1 || f.Col < 1 {
			t.Errorf("not in the file: %v", f)
			continue
		}
		if f.Line <= len(lines) && f.Col > utf8.RuneCountInString(lines[f.Line-1])+1 {
			t.Errorf("not in its line, %q: %v", lines[f.Line-1], f)
		}
	}
	if !slices.IsSortedFunc(faults, func(a, b Fault) int { return (a.Line-b.Line)*(maxFile+1) + a.Col - b.Col }) {
		t.Errorf("not in order:\n%v", faults)
	}
}
