package main

import (
	"bytes"
	"net"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/lab"
)

// TestLabByAddress: a port for each role that answers for it, and a word on which are one site.
func TestLabByAddress(t *testing.T) {
	f := labFlags{byAddress: true}
	listeners, names, err := f.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range listeners {
		defer l.Close()
	}
	seen := map[string]lab.Role{}
	for role, origin := range names.Origins("") {
		host := strings.TrimPrefix(origin, "http://")
		if other, twice := seen[host]; twice {
			t.Errorf("%s and %s are both %s", role, other, host)
		}
		seen[host] = role
		if found, _, ok := names.Find(host); !ok || found != role {
			t.Errorf("%s is the host of %q", host, found)
		}
		if want := map[bool]string{true: "127.0.0.1:", false: "localhost:"}[role == lab.RoleStranger]; !strings.HasPrefix(host, want) {
			t.Errorf("%s is %s; want %s…", role, host, want)
		}
		c, err := net.Dial("tcp", host)
		if err != nil {
			t.Errorf("%s: %v", role, err)
			continue
		}
		c.Close()
	}
	var out bytes.Buffer
	f.guide(&out, names, "", nil)
	if text := out.String(); !strings.Contains(text, "All ports of localhost are of one site") || !strings.Contains(text, names.Origin(lab.RoleStranger, "")) {
		t.Errorf("it says %q", text)
	}
}

// TestLabMovesAside: two labs without --listen are both served, each on both loopback addresses.
func TestLabMovesAside(t *testing.T) {
	var hosts []string
	for range 2 {
		listeners, port, err := anyPort(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range listeners {
			defer l.Close()
		}
		hosts = append(hosts, port)
	}
	if hosts[0] == hosts[1] {
		t.Errorf("both are on port %s", hosts[0])
	}
}

func TestLabBrowserIsTheSystems(t *testing.T) {
	screen := func(string) string { return ":0" }
	for _, c := range []struct {
		system string
		getenv func(string) string
		want   string
	}{
		{"linux", screen, "xdg-open"},
		{"freebsd", screen, "xdg-open"},
		{"darwin", func(string) string { return "" }, "open"},
		{"windows", func(string) string { return "" }, "rundll32"},
		{"linux", func(string) string { return "" }, ""},
	} {
		name, _, err := browserCommand(c.system, c.getenv)
		if name != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v; want %q", c.system, name, err, c.want)
		}
	}
	if isTerminal(&bytes.Buffer{}) {
		t.Error("a buffer is a terminal")
	}
}
