package lab

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v4"

	"github.com/moat-gateway/moat/config"
	"github.com/moat-gateway/moat/gateway"
)

// What the patterns of a text may take: a few bytes of a regular expression can stand for much
// memory, and a condition is compiled for each route that it holds for.
const (
	maxMatches  = 8       // conditions with patterns, of a moat.yaml
	maxPatterns = 1 << 10 // bytes of these conditions
	maxRepeat   = 50      // of one {n}
	maxRepeats  = 100     // of all {n} of these conditions
	maxSnippets = 1000    // of all {n} of a snippet
)

// bounded refuses a moat.yaml that is too long, or whose patterns may take much memory. It
// looks at the values as YAML gives them, for an escape may hide a pattern. What YAML does not
// read is no matter here: config.Parse compiles nothing of it.
func bounded(text string) error {
	if len(text) > maxConfig {
		return fmt.Errorf("%d bytes: the lab takes a moat.yaml of %d", len(text), maxConfig)
	}
	loader, err := yaml.NewLoader(bytes.NewReader([]byte(text)), yaml.WithUniqueKeys(false))
	if err != nil {
		return nil //nolint:nilerr // it gets its fault from config.Parse
	}
	var doc yaml.Node
	if loader.Load(&doc) != nil {
		return nil
	}
	var matching []*yaml.Node
	aliases, routes := false, 0
	var visit func(n *yaml.Node)
	visit = func(n *yaml.Node) {
		aliases = aliases || n.Kind == yaml.AliasNode
		if n.Value == "match" {
			routes++
		}
		if n.Kind == yaml.ScalarNode && strings.Contains(strings.ToLower(n.Value), "matches") {
			matching = append(matching, n)
		}
		for _, below := range n.Content {
			visit(below)
		}
	}
	visit(&doc)
	if len(matching) == 0 {
		return nil
	}
	var conditions strings.Builder
	for _, n := range matching {
		conditions.WriteString(n.Value + "\n")
	}
	all := conditions.String()
	reason := tooMuch(all, maxRepeats)
	switch {
	case strings.Count(strings.ToLower(all), "matches") > maxMatches || len(all) > maxPatterns:
		reason = fmt.Sprintf("matches stands no more than %d times in a moat.yaml, in conditions of %d bytes together", maxMatches, maxPatterns)
	case numbered.MatchString(all):
		reason = "a condition with matches has no numbered escapes"
	case aliases:
		reason = "a moat.yaml has no aliases where a condition uses matches"
	case routes > maxPieces:
		reason = fmt.Sprintf("a moat.yaml has no more than %d routes where a condition uses matches", maxPieces)
	}
	if reason == "" {
		return nil
	}
	at := matching[0]
	return config.Faults{{File: "moat.yaml", Line: max(at.Line, 1), Col: max(at.Column, 1), What: "if", Reason: "in the lab " + reason + "; moat itself has no such bound"}}
}

// counted is {n}, {n,} or {n,m}.
var counted = regexp.MustCompile(`(\)?)\{([0-9]+)(?:,([0-9]*))?\}`)

// large are the classes that hold hundreds of ranges.
var large = regexp.MustCompile(`\\[pP]`)

// numbered are the escapes of CEL that could hide such a class, or a {.
var numbered = regexp.MustCompile(`\\[xXuU0-3]`)

// unquoted is what a text is if quotes and escapes within it are taken away, as its reader may.
var unquoted = strings.NewReplacer(`\`, "", `"`, "", `'`, "", "`", "")

// tooMuch says why the patterns of a text may take much memory; "" if they do not. Nested
// repetitions multiply, so that there are none.
func tooMuch(text string, repeats int) string {
	if large.MatchString(text) {
		return `a pattern has no \p`
	}
	for _, m := range counted.FindAllStringSubmatch(unquoted.Replace(text), -1) {
		n, err := strconv.Atoi(m[2])
		if err == nil && m[3] != "" {
			n, err = strconv.Atoi(m[3])
		}
		if err != nil || n > maxRepeat {
			return fmt.Sprintf("a pattern repeats nothing more than %d times by {n}", maxRepeat)
		}
		if m[1] != "" {
			return "a pattern repeats no group by {n}"
		}
		if repeats -= n; repeats < 0 {
			return "there are too many repetitions by {n}"
		}
	}
	return ""
}

var tooManyPieces = fmt.Sprintf("a moat.yaml has no more than %d of them, upstreams included", maxPieces)

// manyPieces reports whether there is more to build than the lab builds for one visitor.
func manyPieces(c *gateway.Config) bool {
	return len(c.Upstreams)+len(c.Routes) > maxPieces || c.Callers != nil && len(c.Callers.JWT)+len(c.Callers.Keys) > maxPieces
}
