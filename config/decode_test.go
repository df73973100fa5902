package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"
)

// bomb is a file whose aliases stand for very much more than it holds.
func bomb() []byte {
	var b strings.Builder
	b.WriteString("version: 1\npublic_origins: [http://localhost:8080]\nupstreams: {app: {url: http://127.0.0.1:3000}}\n")
	b.WriteString("policies:\n  p: {origins: &o [" + strings.Repeat("https://x.example, ", 1000) + "]}\nroutes:\n")
	for i := range 2000 {
		fmt.Fprintf(&b, "  - {match: /%d, upstream: app, auth: public, origins: *o}\n", i)
	}
	return []byte(b.String())
}

func TestAliasesHaveABudget(t *testing.T) {
	start := time.Now()
	_, err := Parse("moat.yaml", bomb(), hermetic())
	var faults Faults
	if !errors.As(err, &faults) || len(faults) != 1 || !strings.Contains(faults[0].Reason, "aliases stand for more than") {
		t.Errorf("got %d faults, the first %.300v", len(faults), err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestAliasOfItselfEnds(t *testing.T) {
	for _, text := range []string{"&a [*a]", "&a {tls: *a}", "&a {x: *a}"} {
		if _, err := parseLines(append([]string{"listen: " + text}, base...)...); err == nil {
			t.Errorf("%s: no fault", text)
		}
	}
}

func TestDeepFilesEnd(t *testing.T) {
	for _, text := range []string{
		strings.Repeat("[", 9000) + strings.Repeat("]", 9000), strings.Repeat("{a: ", 9000) + strings.Repeat("}", 9000),
		strings.Repeat("[", 1<<19), strings.Repeat("- ", 1<<18), strings.Repeat("a:\n ", 1<<15), strings.Repeat("? ", 1<<18),
		strings.Repeat("\"", 1<<19), strings.Repeat("a: b\n", 1<<16),
	} {
		if _, err := Parse("moat.yaml", []byte(text), Options{}); err == nil {
			t.Errorf("%.20s…: no fault", text)
		}
	}
}

func TestReferencesStandInEveryKindOfText(t *testing.T) {
	o := hermetic()
	env := map[string]string{"PORT": "8088", "SIZE": "64KiB", "MODE": "report", "NET": "10.0.0.0/8", "DAY": "24h", "HOST": "api.example.com", "SELF": "${env:SELF}"}
	o.Getenv = func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	}
	l, err := Parse("moat.yaml", []byte(`version: 1
listen: 127.0.0.1:${env:PORT}
limits: {header_bytes: "${env:SIZE}", idle: "${env:DAY}"}
trusted_proxies: {from: ["${env:NET}"], header: Forwarded, mode: "${env:MODE}"}
public_origins: ["https://${env:HOST}:${env:PORT}"]
upstreams: {app: {url: http://127.0.0.1:3000, headers: {X-Self: "${env:SELF}"}}}
routes: [{match: "${env:HOST}/", upstream: app, auth: public}]
`), o)
	if err != nil {
		t.Fatal(err)
	}
	g, s := l.Gateway, l.Server
	if s.Listeners[0].Address != "127.0.0.1:8088" || s.HeaderBytes != 64<<10 || s.Idle != 24*time.Hour || g.ClientAddrMode.String() != "report" ||
		g.Trust.Proxies[0].String() != "10.0.0.0/8" || g.PublicOrigins[0].String() != "https://api.example.com:8088" || g.Routes[0].Pattern != "api.example.com/" {
		t.Errorf("got %+v\n%+v", g, s)
	}
	if got := g.Upstreams["app"].Headers["X-Self"]; got != "${env:SELF}" {
		t.Errorf("what a reference stands for was looked into again: %q", got)
	}
}

// What may be dangerous must be readable in the file itself.
func TestTrueAndFalseTakeNoReference(t *testing.T) {
	_, err := parseLines(append([]string{`dangerously_allow_insecure_public_origins: "${env:GATE_PROOF}"`}, base...)...)
	if err == nil || !strings.Contains(err.Error(), "want true or false") {
		t.Errorf("got %v", err)
	}
}

func TestSizes(t *testing.T) {
	f := field{or: "unlimited"}
	for text, want := range map[string]size{
		"0": 0, "7": 7, "7B": 7, "1KB": 1000, "1KiB": 1024, "3MB": 3e6, "3MiB": 3 << 20, "2GB": 2e9, "2GiB": 2 << 30, "unlimited": unlimited,
		"9223372036854775807": 1<<63 - 1,
	} {
		if got, reason := parseSize(text, f); got != want {
			t.Errorf("%s: got %v (%s), want %d", text, got, reason, want)
		}
	}
	for text, want := range map[string]string{
		"": "not a size", "-1": "not a size", "1.5MB": "not a size", "0x10": "not a size", "1 KB": `did you mean "1KB"?`, "10M": `did you mean "10MiB"?`,
		"10mib": `did you mean "10MiB"?`, "10g": `did you mean "10GiB"?`, "unlimitd": `did you mean "unlimited"?`,
		"9223372036854775808": "larger than any size", "9007199254740993GiB": "larger than any size",
	} {
		if got, reason := parseSize(text, f); !strings.Contains(reason, want) {
			t.Errorf("%s: got %v (%s), want %s", text, got, reason, want)
		}
	}
}

func TestDurations(t *testing.T) {
	var f field
	for text, want := range map[string]time.Duration{
		"1ms": time.Millisecond, "0s": 0, "-5s": -5 * time.Second, "1h30m": 90 * time.Minute, "1.5h": 90 * time.Minute,
	} {
		if got, reason := parseDuration(text, f); got != want {
			t.Errorf("%s: got %v (%s), want %s", text, got, reason, want)
		}
	}
	for text, want := range map[string]string{
		"": "not a duration", "30": `no unit; write "30s"`, "1d": "not a duration", "5ns": "not a duration", "5 s": "not a duration", ".5s": "not a duration",
		"s": "not a duration", "99999999999h": "not a duration", "1H": "not a duration",
	} {
		if got, reason := parseDuration(text, f); !strings.Contains(reason, want) {
			t.Errorf("%s: got %v (%s), want %s", text, got, reason, want)
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, text := range []string{":8080", "127.0.0.1:0", "[::1]:8080", "localhost:65535", "my_host.example:1", "[fe80::1%eth0]:80"} {
		if _, reason := parseAddress(text, field{}); reason != "" {
			t.Errorf("%s: %s", text, reason)
		}
	}
	for _, text := range []string{"", "off", "8080", "localhost", "::1:80", "[::1]", "h:65536", "h:+1", "h:01", "h:", "h:http", "a b:1", "[x:y]:1", "h:1:2", "-h:1", "http://h:1"} {
		if got, reason := parseAddress(text, field{}); reason == "" {
			t.Errorf("%s: got %v", text, got)
		}
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	s := Secret{text: "hunter2"}
	if s.Reveal() != "hunter2" {
		t.Errorf("Reveal: %q", s.Reveal())
	}
	type holder struct {
		S Secret
		P *Secret
		M map[string]Secret
	}
	h := holder{s, &s, map[string]Secret{"k": s}}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", "secret", s, "holder", h)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "secret", s, "holder", h)
	asJSON, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{log.String(), string(asJSON), s.String(), s.GoString(), fmt.Errorf("%w: %v", errNoFiles, s).Error()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%10s", "%-5.2v"} {
		texts = append(texts, fmt.Sprintf(verb, s), fmt.Sprintf(verb, h), fmt.Sprintf(verb, []Secret{s}))
	}
	for _, text := range texts {
		for _, shape := range []string{"hunter2", "68756e74657232", "68756E74657232", "104 117"} {
			if strings.Contains(text, shape) {
				t.Errorf("it prints: %s", text)
			}
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"pges", "pages", 1}, {"pgaes", "pages", 2}, {"kitten", "sitting", 3}} {
		if got := distance(c.a, c.b); got != c.want || distance(c.b, c.a) != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestDefaultsStayAsTheyAre(t *testing.T) {
	before := fmt.Sprintf("%+v", defaults[reflect.TypeFor[file]()])
	for _, name := range glob(t, "testdata/*/*.yaml") {
		Parse(name, read(t, name), hermetic())
	}
	if after := fmt.Sprintf("%+v", defaults[reflect.TypeFor[file]()]); after != before {
		t.Errorf("the defaults changed from\n%s\nto\n%s", before, after)
	}
}
