package bench

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/publicsuffix"

	"github.com/moat-gateway/moat/web"
)

// entryDifference is an entry of a list of origins that one of moat and jub0bs accepts
// and the other does not, on purpose. (rs accepts any text.)
type entryDifference struct {
	name, why string
	// stricter says that ours refuses what jub0bs accepts.
	stricter bool
	when     func(entry naiveEntry, credentials bool) bool
}

// naiveEntry is an entry taken apart, whatever it is worth.
type naiveEntry struct {
	text, scheme, host, port string // host without "*."
	sub                      bool
}

func splitEntry(s string) naiveEntry {
	e := naiveEntry{text: s}
	var rest string
	e.scheme, rest, _ = strings.Cut(s, "://")
	e.host = rest
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, ']') {
		e.host, e.port = rest[:i], rest[i+1:]
	}
	e.host, e.sub = strings.CutPrefix(e.host, "*.")
	return e
}

func (e naiveEntry) lastLabel() string {
	return e.host[strings.LastIndexByte(e.host, '.')+1:]
}

// loopback is what can only be this machine.
func (e naiveEntry) loopback() bool {
	return e.host == "localhost" || strings.HasSuffix(e.host, ".localhost") || e.host == "127.0.0.1" || e.host == "[::1]"
}

var (
	oddLabel  = regexp.MustCompile(`(^|\.)(-|[^.]*-(\.|$)|[^.]*_|..--|xn--)`)
	oddScheme = regexp.MustCompile(`^(data|blob|about|javascript)$|_|^.{33}`)
)

var entryDifferences = []entryDifference{
	{
		name:     "a dot at the end",
		why:      "with the dot it is another origin, on which nobody means to have a page; who writes it mistypes",
		stricter: true,
		when:     func(e naiveEntry, _ bool) bool { return strings.HasSuffix(e.host, ".") },
	},
	{
		name:     "http: without credentials",
		why:      "whoever is on the network path can speak for an http: origin, and API keys and intranets need no cookies to be worth it",
		stricter: true,
		when:     func(e naiveEntry, credentials bool) bool { return e.scheme == "http" && !e.loopback() && !credentials },
	},
	{
		name:     "a public suffix without credentials",
		why:      "below it everybody can have a page; jub0bs objects only where there are credentials",
		stricter: true,
		when: func(e naiveEntry, credentials bool) bool {
			suffix, _ := publicsuffix.PublicSuffix(strings.TrimSuffix(e.host, "."))
			return e.sub && !credentials && suffix == strings.TrimSuffix(e.host, ".")
		},
	},
	{
		name:     "any port of this machine",
		why:      "any program here can be the page",
		stricter: true,
		when:     func(e naiveEntry, _ bool) bool { return e.scheme == "http" && e.loopback() && e.port == "*" },
	},
	{
		name:     "the default port of a scheme other than http and https",
		why:      "browsers leave it out for ws, wss and ftp too",
		stricter: true,
		when: func(e naiveEntry, _ bool) bool {
			return e.scheme != "http" && e.scheme != "https" && e.port != "" && e.port == defaultPorts[e.scheme]
		},
	},
	{
		name:     "schemes whose pages have an opaque origin, or that are none",
		why:      "they can never be equal to an Origin",
		stricter: true,
		when:     func(e naiveEntry, _ bool) bool { return oddScheme.MatchString(e.scheme) },
	},
	{
		name: "schemes of apps, with credentials",
		why:  "the web view of an app is on nobody's network path; jub0bs calls every scheme but https insecure",
		when: func(e naiveEntry, credentials bool) bool {
			return credentials && e.scheme != "http" && e.scheme != "https" && !e.loopback()
		},
	},
	{
		name: "subdomains of localhost, with credentials",
		why:  "they are this machine (RFC 6761 section 6.3), and no public suffix; jub0bs asks for an override",
		when: func(e naiveEntry, credentials bool) bool { return credentials && e.sub && e.host == "localhost" },
	},
	{
		name: "labels that registries refuse and browsers send",
		why:  "the URL standard lets hosts have underscores, and hyphens anywhere; whether Punycode is sound is not looked at, because such a host has no page",
		when: func(e naiveEntry, _ bool) bool { return oddLabel.MatchString(e.host) },
	},
	{
		name: "bases that leave no room for a label",
		why:  "a pattern on a host of 252 or 253 bytes matches nothing, and does no harm",
		when: func(e naiveEntry, _ bool) bool { return e.sub && len(e.host) > 251 },
	},
	{
		name: "a last label that begins with a digit and is no number",
		why:  "the URL standard takes only labels that are a number for an IPv4 address",
		when: func(e naiveEntry, _ bool) bool {
			last := e.lastLabel()
			return last != "" && last[0] >= '0' && last[0] <= '9' && strings.Trim(last, "0123456789") != ""
		},
	},
}

// someEntry is a text that may stand in a list of origins, or nearly.
func someEntry(r *rand.Rand) string {
	switch r.IntN(100) {
	case 0:
		return "http://" + pick(r, "localhost", "a.localhost", "127.0.0.1", "[::1]") + ":*"
	case 1:
		return pick(r, "https", "wss") + "://*." + strings.Repeat("a.", 125) + pick(r, "a", "aa", "aaa", "aaaa")
	}
	scheme := pick(r, "https", "https", "https", "https", "http", "http", "ws", "wss", "ftp", "capacitor", "chrome-extension", "HTTPS", "file", "data", "blob",
		"a_b", "a+b.c-1", "1a", "", strings.Repeat("s", 32), strings.Repeat("s", 33), strings.Repeat("s", 64), strings.Repeat("s", 65))
	host := pick(r, append([]string{"localhost", "127.0.0.1"}, bases...)...)
	if one(r, 2) {
		host = pick(r, "localhost", "a.localhost", "127.0.0.1", "[::1]", "192.0.2.7", "[2001:db8::1]", "[2001:DB8::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:1.2.3.4]", "[fe80::1%25eth0]", "[::1",
			"com", "co.uk", "github.io", "1.2.3", "256.1.1.1", "0x7f.1", "01.2.3.4", "a.1a", "a.0x1", "a.1", "bücher.example", "xn--a.example", "xn--bcher-kva.example", "a..b", ".a", "a.", "-",
			"-a.example", "a-.example", "a_b.example", "ab--c.example", "Example.com", "user@example.com", "exa mple.com", "", "*", "a.*.example.com", "a*.example.com",
			strings.Repeat("a", 63)+".example", strings.Repeat("a", 64)+".example", strings.Repeat("a.", 126)+"a", strings.Repeat("a.", 126)+"aa", strings.Repeat("a.", 125)+"a")
	}
	if one(r, 3) {
		host = "*." + host
	}
	if one(r, 10) {
		host += "."
	}
	port := pick(r, "", "", "", "", ":443", ":80", ":21", ":8443", ":*", ":*", ":0", ":65535", ":65536", ":080", ":", ":x", ":+1")
	text := scheme + "://" + host + port
	if one(r, 6) {
		return pick(r, "", " ", "*") + text + pick(r, "", "/", "/x", "?", "#", " ", "*")
	}
	return text
}

func TestEntriesAgreeWithJub0bs(t *testing.T) {
	counts := make([]int, len(entryDifferences))
	s := seed(t)
	r := rand.New(rand.NewPCG(s, 0))
	seen := make(map[string]bool)
	compared, accepted := 0, 0
	for range policies(30_000) {
		text := someEntry(r)
		credentials := one(r, 2)
		if key := fmt.Sprint(text, credentials); seen[key] {
			continue
		} else {
			seen[key] = true
		}
		compared++
		_, faults := web.NewOriginSet([]string{text}, web.OriginSetOptions{})
		_, err := newJub0bs(Policy{Origins: []string{text}, Credentials: credentials})
		ours, theirs := len(faults) == 0, err == nil
		if ours {
			accepted++
		}
		if ours == theirs {
			continue
		}
		e := splitEntry(text)
		i := slices.IndexFunc(entryDifferences, func(d entryDifference) bool { return d.stricter == theirs && d.when(e, credentials) })
		if i < 0 {
			t.Errorf("entry %q with credentials %v: ours accepts %v (%v), jub0bs %v (%v), and no difference is named for it", text, credentials, ours, faults, theirs, err)
			continue
		}
		counts[i]++
	}
	for i, d := range entryDifferences {
		direction := "looser"
		if d.stricter {
			direction = "stricter"
		}
		t.Logf("%8d  ours is %-8s %s", counts[i], direction, d.name)
		if counts[i] == 0 {
			t.Errorf("difference %q never occurred: mend its predicate or strike it out", d.name)
		}
	}
	t.Logf("%8d  entries compared, %d accepted", compared, accepted)
}
