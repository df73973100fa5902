package browser

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

// noon is the time at which vectors play. Only differences count.
var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// TestVectors plays the cases of vectors/browser, which real Chromium plays too (e2e/agree).
// -update writes down what the model says: run make verify-browser afterwards.
func TestVectors(t *testing.T) {
	files, err := filepath.Glob("../vectors/browser/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no vectors: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var cases []Case
			decoder := json.NewDecoder(bytes.NewReader(text))
			decoder.DisallowUnknownFields()
			if err := decoder.Decode(&cases); err != nil {
				t.Fatal(err)
			}
			for i := range cases {
				t.Run(cases[i].Name, func(t *testing.T) { playVector(t, &cases[i]) })
			}
			if *update {
				write(t, file, cases)
			}
		})
	}
}

func playVector(t *testing.T, c *Case) {
	t.Helper()
	traces, err := c.Run(noon)
	if err != nil {
		t.Fatal(err)
	}
	var got []Want
	for _, trace := range traces {
		w := Want{Verdict: trace.Verdict}
		for _, x := range trace.Exchanges {
			if !x.FromCache {
				w.Sent = append(w.Sent, x.Message)
			}
		}
		got = append(got, w)
	}
	if *update {
		c.Want = got
	}
	if !reflect.DeepEqual(got, c.Want) {
		have, _ := json.MarshalIndent(got, "", "  ")
		want, _ := json.MarshalIndent(c.Want, "", "  ")
		t.Errorf("got %s\nwant %s", have, want)
	}
}

// write writes a case's parts a line each.
func write(t *testing.T, file string, cases []Case) {
	t.Helper()
	var text bytes.Buffer
	for i, c := range cases {
		text.WriteString(map[bool]string{true: "[{", false: "}, {"}[i == 0])
		for j, part := range []struct {
			name  string
			value any
		}{
			{"name", c.Name}, {"page", c.Page}, {"browser", c.Browser}, {"requests", c.Requests}, {"answers", c.Answers}, {"want", c.Want},
		} {
			if reflect.ValueOf(part.value).IsZero() {
				continue
			}
			if j > 0 {
				text.WriteString(",")
			}
			fmt.Fprintf(&text, "\n  %q: ", part.name)
			var line bytes.Buffer
			encoder := json.NewEncoder(&line)
			encoder.SetEscapeHTML(false)
			if err := encoder.Encode(part.value); err != nil {
				t.Fatal(err)
			}
			text.Write(bytes.TrimSpace(line.Bytes()))
		}
		text.WriteString("\n")
	}
	text.WriteString("}]\n")
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}
