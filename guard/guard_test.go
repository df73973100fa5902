package guard

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the generated files")

func TestReasonsAreAClosedSetOfStableCodes(t *testing.T) {
	code := regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)
	seen := make(map[string]bool)
	for _, r := range Reasons() {
		e := r.entry()
		if !code.MatchString(e.code) || seen[e.code] {
			t.Errorf("Reason(%d): code %q is malformed or taken", r, e.code)
		}
		seen[e.code] = true
		if back, ok := ParseReason(e.code); !ok || back != r {
			t.Errorf("ParseReason(%q) = %v, %v", e.code, back, ok)
		}
		if e.status != 0 && (e.title == "" || e.cause == "" || e.fix == "" || http.StatusText(e.status) == "") {
			t.Errorf("%s refuses, but does not say all: %+v", e.code, e)
		}
		if e.status == 0 && problems[r] != nil || e.status != 0 && problems[r] == nil {
			t.Errorf("%s: a problem document belongs to a refusal, and to nothing else", e.code)
		}
	}
	if _, ok := ParseReason("no-such"); ok {
		t.Error("an unknown code was parsed")
	}
}

func TestRefuse(t *testing.T) {
	for _, id := range []string{"", "0123456789abcdef"} {
		w := httptest.NewRecorder()
		Refuse(w, CORSOriginNotAllowed, id)
		var p map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Fatal(err)
		}
		got, has := p["id"]
		if p["code"] != "cors-origin-not-allowed" || p["status"] != float64(403) || w.Code != 403 || has != (id != "") || has && got != id {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%v", w.Header())
		}
	}
}

func TestModes(t *testing.T) {
	for _, m := range []Mode{Enforce, Report, Off} {
		b, err := m.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back Mode
		if err := back.UnmarshalText(b); err != nil || back != m {
			t.Errorf("%s: %v, %v", m, back, err)
		}
	}
	if new(Mode).UnmarshalText([]byte("on")) == nil {
		t.Error("an unknown mode was accepted")
	}
}

// The page of reason codes is generated: go test ./guard -run Generated -update.
func TestGeneratedReasonsPageIsCurrent(t *testing.T) {
	const path = "../docs/reasons.md"
	want := reasonsPage()
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not current (%v): run make docs", path, err)
	}
}

func reasonsPage() []byte {
	var b bytes.Buffer
	b.WriteString(`# Reason codes

<!-- Generated from guard/reason.go by "make docs". Do not edit. -->

Every decision of moat has one of these codes. A refused client gets an
` + "`application/problem+json`" + ` document (RFC 9457) with the code, its title, and an id. The
cause and the way out are for the operator: ` + "`moat why ID`" + `, with the id from the refusal
or from the log. A code, once released, keeps its meaning.

| code | step | status |
| --- | --- | --- |
`)
	for _, r := range Reasons() {
		fmt.Fprintf(&b, "| [%s](#%s) | %s | %s |\n", r, r, r.Step(), outcomeOf(r))
	}
	for _, r := range Reasons() {
		fmt.Fprintf(&b, "\n## %s\n\n", r)
		if r.Title() != "" {
			fmt.Fprintf(&b, "%s. ", r.Title())
		}
		fmt.Fprintf(&b, "*%s: %s.*\n", strings.ReplaceAll(r.Step().String(), "_", " "), outcomeOf(r))
		if r.Cause() != "" {
			fmt.Fprintf(&b, "\n%s\n\n**To mend it:** %s\n", r.Cause(), r.Fix())
		}
	}
	return b.Bytes()
}

func outcomeOf(r Reason) string {
	switch {
	case r.Status() != 0:
		return fmt.Sprintf("%d %s", r.Status(), http.StatusText(r.Status()))
	case r == UpstreamAborted || r == RequestAborted:
		return "connection aborted"
	case r == CORSPreflightApproved:
		return "204 from the gate"
	case r == ScrubForgedHeader:
		return "header removed"
	}
	return "passes"
}
