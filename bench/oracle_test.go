package bench

import (
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/cors"
	"github.com/moat-gateway/moat/web"
)

// The naive oracles say what the guards must find, in the slow and obvious way. They
// share no code with the guards.

// naiveOrigin is an origin taken apart, or a pattern of origins.
type naiveOrigin struct {
	scheme string
	labels []string // a single one for an IPv6 address
	port   string
}

var (
	naiveLabel   = regexp.MustCompile(`^[a-z0-9_-]{1,63}$`)
	naiveIPv6    = regexp.MustCompile(`^\[[0-9a-f:.]+\]$`)
	naivePort    = regexp.MustCompile(`^[1-9][0-9]{0,4}$`)
	defaultPorts = map[string]string{"http": "80", "ws": "80", "https": "443", "wss": "443", "ftp": "21"}
)

// parseNaive takes an origin apart; ok means that a browser could write it so. (That an
// address is in its canonical form is only for the list to see to.)
func parseNaive(s string) (o naiveOrigin, ok bool) {
	scheme, rest, found := strings.Cut(s, "://")
	if !found {
		return o, false
	}
	o.scheme = scheme
	var (
		host, port string
		colon      bool
	)
	if strings.HasPrefix(rest, "[") {
		end := strings.IndexByte(rest, ']') + 1
		host = rest[:end]
		port, colon = strings.CutPrefix(rest[end:], ":")
		if !naiveIPv6.MatchString(host) || !colon && end != len(rest) {
			return o, false
		}
		o.labels = []string{host}
	} else {
		host, port, colon = strings.Cut(rest, ":")
		o.labels = strings.Split(host, ".")
		for _, l := range o.labels {
			if !naiveLabel.MatchString(l) {
				return o, false
			}
		}
	}
	if colon {
		n, err := strconv.Atoi(port)
		if err != nil || !naivePort.MatchString(port) || n > 65535 || port == defaultPorts[scheme] {
			return o, false
		}
	}
	o.port = port
	return o, len(host) <= 253
}

// naiveMatch reports whether the entry of a list covers the origin.
func naiveMatch(entry, origin string) bool {
	if !strings.Contains(entry, "*") {
		return entry == origin
	}
	o, ok := parseNaive(origin)
	if !ok {
		return false
	}
	rest, anyPort := strings.CutSuffix(entry, ":*")
	sub := strings.Contains(rest, "://*.")
	p, ok := parseNaive(strings.Replace(rest, "://*.", "://", 1))
	if !ok || p.scheme != o.scheme || !anyPort && p.port != o.port {
		return false
	}
	if !sub {
		return slices.Equal(p.labels, o.labels)
	}
	more := len(o.labels) - len(p.labels)
	return more > 0 && slices.Equal(o.labels[more:], p.labels)
}

func naiveLists(list []string, origin string) bool {
	return slices.ContainsFunc(list, func(entry string) bool { return entry != "*" && naiveMatch(entry, origin) })
}

// slack is what a preflight's header list may have beyond the policy's names: in
// empty elements of the list, and in bytes of an element.
const slack = 16

// naiveHeaders reports whether the policy with those header names lets the lines of
// Access-Control-Request-Headers pass.
func naiveHeaders(allowed, lines []string) bool {
	set := make(map[string]bool)
	longest := 0
	for _, n := range allowed {
		set[asciiLower(n)] = true
		longest = max(longest, len(n))
	}
	names, empty := 0, 0
	for _, line := range lines {
		for e := range strings.SplitSeq(line, ",") {
			name := asciiLower(strings.Trim(e, " \t"))
			if len(e) > longest+slack || name != "" && !set[name] {
				return false
			}
			if name == "" {
				empty++
			} else {
				names++
			}
		}
	}
	return names <= len(set) && empty <= slack
}

func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

func FuzzOriginSet(f *testing.F) {
	for _, c := range [][2]string{
		{"https://*.example.org", "https://a.example.org"},
		{"https://*.example.org:*\nhttps://*.a.example.org:8443", "https://b.a.example.org:8443"},
		{"https://ports.example.com:*\nhttps://example.com", "https://ports.example.com"},
		{"https://*.fixed.example.net:8443", "https://barfixed.example.net:8443"},
		{"http://localhost:5173\nhttp://[::1]:*", "http://[::1]:3000"},
		{"https://*.example.org\nhttps://*.b.example.org", "https://b.example.org."},
		{"https://*.example.org", "https://evil@a.example.org"},
		{"https://*.example.org:*", "https://a.example.org:443"},
		{"https://*.example.org", "https://" + strings.Repeat("a.", 121) + "example.org"},
		{"https://*.example.org", "https://" + strings.Repeat("a", 64) + ".example.org"},
	} {
		f.Add(c[0], c[1])
	}
	f.Fuzz(func(t *testing.T, lines, origin string) {
		list := strings.Split(lines, "\n")
		set, faults := web.NewOriginSet(list, web.OriginSetOptions{
			DangerouslyAllowPublicSuffix: true, DangerouslyAllowInsecureOrigins: true, DangerouslyAllowAnyLocalhostPort: true,
		})
		if len(faults) > 0 || set.Any() {
			return
		}
		for _, o := range append([]string{origin}, list...) {
			if got, want := set.Lists(o), naiveLists(list, o); got != want {
				t.Errorf("list %q, origin %q: listed %v, want %v", list, o, got, want)
			}
		}
	})
}

func FuzzRequestHeaders(f *testing.F) {
	for _, c := range [][2]string{
		{"content-type,authorization", "authorization,content-type"},
		{"content-type,authorization", "Content-Type\nAUTHORIZATION , ,"},
		{"x-a", strings.Repeat(",", slack-1)},
		{"x-a", strings.Repeat(",", slack)},
		{"x-a", "x-a" + strings.Repeat(" ", slack)},
		{"x-a", "x-a" + strings.Repeat(" ", slack) + ","},
		{"x-a", "x-a" + strings.Repeat(" ", slack+1)},
		{"x-a,x-" + strings.Repeat("b", 80), "X-" + strings.Repeat("B", 80)},
		{"", "x-a"},
		{"", " "},
	} {
		f.Add(c[0], c[1])
	}
	f.Fuzz(func(t *testing.T, names, lines string) {
		var allowed []string
		if names != "" {
			allowed = strings.Split(names, ",")
		}
		if slices.Contains(allowed, "*") {
			return // no list to compare with
		}
		origins, faults := web.NewOriginSet([]string{"https://app.example.com"}, web.OriginSetOptions{})
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		g, errs := cors.New(cors.Policy{Origins: origins, Methods: []string{"PUT"}, RequestHeaders: allowed})
		if len(errs) > 0 {
			return
		}
		acrh := strings.Split(lines, "\n")
		r := request(http.MethodOptions, "https://app.example.com")
		r.Header["Access-Control-Request-Method"] = []string{"PUT"}
		r.Header["Access-Control-Request-Headers"] = acrh
		d := g.Decide(r)
		if got, want := d.Outcome == guard.Answer, naiveHeaders(allowed, acrh); got != want {
			t.Errorf("request_headers %q, Access-Control-Request-Headers %q: %v, want passing %v", allowed, acrh, d.Reason, want)
		}
	})
}
