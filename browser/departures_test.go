package browser

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestDeparturesAreTheProfilesDifferences(t *testing.T) {
	listed := map[[2]string]bool{}
	for _, d := range Departures {
		if d.Standard == "" || d.Browser == "" || d.Source == "" || len(d.Browsers) == 0 {
			t.Errorf("%s: a departure says what both do, and where that is known from", d.Field)
		}
		for _, b := range d.Browsers {
			if listed[[2]string{b, d.Field}] {
				t.Errorf("%s is listed twice for %s", d.Field, b)
			}
			listed[[2]string{b, d.Field}] = true
		}
	}
	base := reflect.ValueOf(standard)
	for _, p := range []Profile{chromium, firefox} {
		v := reflect.ValueOf(p)
		for i := range v.NumField() {
			field := v.Type().Field(i).Name
			if field == "Name" {
				continue
			}
			departs := !reflect.DeepEqual(v.Field(i).Interface(), base.Field(i).Interface())
			key := [2]string{p.Name, field}
			if departs != listed[key] {
				t.Errorf("%s: the profile departs in %s: %v; Departures lists it: %v", p.Name, field, departs, listed[key])
			}
			delete(listed, key)
		}
	}
	for key := range listed {
		t.Errorf("Departures lists %v, which is no field of a profile", key)
	}
}

func TestProfilesAreKnownByName(t *testing.T) {
	for _, name := range []string{"", "chromium", "firefox", "standard"} {
		p, err := ProfileNamed(name)
		if err != nil || name != "" && p.Name != name {
			t.Errorf("%q: %v, %v", name, p, err)
		}
	}
	if _, err := ProfileNamed("netscape"); err == nil {
		t.Error("netscape is no profile")
	}
	if !slices.ContainsFunc(Departures, func(d Departure) bool { return slices.Contains(d.Browsers, "chromium") }) {
		t.Error("Chromium departs somewhere")
	}
}

func TestGeneratedDepartures(t *testing.T) {
	text, err := os.ReadFile("testdata/browser.md")
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	table.WriteString("| browser | the standard | the browser | known from |\n|-|-|-|-|\n")
	for _, d := range Departures {
		fmt.Fprintf(&table, "| %s | %s | %s | %s |\n", strings.Join(d.Browsers, ", "), d.Standard, d.Browser, d.Source)
	}
	comparePage(t, "../docs/browser.md", []byte(strings.Replace(string(text), "{{departures}}", table.String(), 1)))
}
