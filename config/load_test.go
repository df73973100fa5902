package config

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	yaml "go.yaml.in/yaml/v4"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
)

// now is the time of every test.
var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// variables are the environment of every test. No message may tell what they hold, so
// each value has CANARY in it.
var variables = map[string]string{
	"GATE_PROOF": "CANARY-proof", "BACKEND": "127.0.0.1:3000", "CERT": "tls.crt", "EMPTY": "", "LINES": "CANARY\r\nX: y", "SLASH_8": "/8",
	"CANARY_TEXT": "CANARY", "CANARY_ORIGIN": "https://CANARY.example/", "CANARY_URL": "http://CANARY:CANARY@CANARY", "CANARY_PATH": "/a/{CANARY}",
}

// tlsFiles are certificates and keys, made once, by name.
var tlsFiles = sync.OnceValue(func() map[string][]byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	keyPEM := func(k *ecdsa.PrivateKey) []byte {
		der, mErr := x509.MarshalPKCS8PrivateKey(k)
		if mErr != nil {
			panic(mErr)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	cert := func(serial int64, from, to time.Time) []byte {
		c := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"}, NotBefore: from, NotAfter: to,
			DNSNames: []string{"api.example.com"}, IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)},
		}
		der, cErr := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
		if cErr != nil {
			panic(cErr)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	day := 24 * time.Hour
	return map[string][]byte{
		"tls.key": keyPEM(key), "other.key": keyPEM(other),
		"tls.crt":    cert(1, now.Add(-day), now.Add(90*day)),
		"new.crt":    cert(2, now.Add(-day), now.Add(90*day)),
		"soon.crt":   cert(3, now.Add(-day), now.Add(2*day)),
		"old.crt":    cert(4, now.Add(-2*day), now.Add(-day)),
		"future.crt": cert(5, now.Add(day), now.Add(2*day)),
	}
})

// hermetic are Options that look at nothing of the machine.
func hermetic() Options {
	return Options{
		Now: now,
		Getenv: func(name string) (string, bool) {
			v, ok := variables[name]
			return v, ok
		},
		ReadFile: func(name string) ([]byte, error) {
			if data, ok := tlsFiles()[filepath.Base(name)]; ok {
				return data, nil
			}
			switch filepath.Base(name) {
			case "token.txt":
				return []byte("CANARY-token\r\n"), nil
			case "forbidden.key":
				return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
			}
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		},
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: no files (%v)", pattern, err)
	}
	return names
}

// parseLines parses a configuration given as lines, on top of one that has no faults.
func parseLines(lines ...string) (*Loaded, error) {
	return Parse("moat.yaml", []byte(strings.Join(lines, "\n")+"\n"), hermetic())
}

// base is what every file must have; a route may be put after it.
var base = []string{
	"version: 1",
	"public_origins: [http://localhost:8080]",
	"upstreams: {app: {url: http://127.0.0.1:3000}}",
	"routes:",
	"  - {match: /, upstream: app, auth: public}",
}

func mustLoad(t *testing.T, lines ...string) *Loaded {
	t.Helper()
	l, err := parseLines(lines...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// validate asks the JSON Schema about a file.
func validate(t testing.TB, data []byte) error {
	t.Helper()
	var v any
	if err := yaml.Load(data, &v, yaml.WithUniqueKeys(false)); err != nil {
		return err
	}
	return compiledSchema().Validate(withoutDates(v))
}

// withoutDates turns dates into texts, which they are to editors: JSON has none.
func withoutDates(v any) any {
	switch v := v.(type) {
	case time.Time:
		return v.Format(time.DateOnly)
	case map[string]any:
		for k := range v {
			v[k] = withoutDates(v[k])
		}
	case []any:
		for i := range v {
			v[i] = withoutDates(v[i])
		}
	}
	return v
}

var compiledSchema = sync.OnceValue(func() *jsonschema.Schema {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		panic(err)
	}
	c := jsonschema.NewCompiler()
	if err = c.AddResource("moat.schema.json", doc); err != nil {
		panic(err)
	}
	return c.MustCompile("moat.schema.json")
})

func TestGoodFilesLoad(t *testing.T) {
	for _, name := range glob(t, "testdata/good/*.yaml") {
		t.Run(filepath.Base(name), func(t *testing.T) {
			data := read(t, name)
			l, err := Parse(name, data, hermetic())
			if err != nil {
				t.Fatal(err)
			}
			if err = validate(t, data); err != nil {
				t.Errorf("the schema refuses it: %v", err)
			}
			g, err := gateway.New(l.Gateway, nil)
			if err != nil {
				t.Fatalf("the gateway refuses it: %v", err)
			}
			for _, test := range l.Tests {
				if err = test.Run(g); err != nil {
					t.Error(err)
				}
			}
			compareGolden(t, strings.TrimSuffix(name, "yaml")+"txt", []byte(summary(l)))
		})
	}
}

// summary tells what a file came to, without what it keeps secret.
func summary(l *Loaded) string {
	var b strings.Builder
	for _, w := range l.Warnings {
		fmt.Fprintln(&b, w)
	}
	fmt.Fprintln(&b, "files:", l.Files)
	fmt.Fprintln(&b, "overrides:", l.Gateway.Overrides)
	s := l.Server
	for _, lis := range s.Listeners {
		fmt.Fprintln(&b, "listen:", lis.Address, lis.TLS != nil, lis.ProxyProtocol)
	}
	s.Listeners = nil
	fmt.Fprintf(&b, "server: %+v\n", s)
	fmt.Fprintln(&b, "public:", l.Gateway.PublicOrigins, "trust:", l.Gateway.Trust, l.Gateway.ClientAddrMode)
	for _, name := range keys(l.Gateway.Upstreams) {
		u := l.Gateway.Upstreams[name]
		fmt.Fprintln(&b, "upstream:", name, u.URL, u.PreserveHost, keys(u.Headers), u.DialTimeout, u.ResponseTimeout)
	}
	if l.Valkey != nil {
		fmt.Fprintln(&b, "valkey:", l.Valkey, l.Valkey.DB, l.Valkey.Prefix, l.Valkey.Timeout, l.Valkey.SentinelUsername, len(l.Valkey.Password), len(l.Valkey.SentinelPassword))
	}
	for _, r := range l.Gateway.Routes {
		origins := fmt.Sprint(r.Origins.Len(), " origins, patterns ", r.Origins.Patterns(), ", any ", r.Origins.Any())
		r.Origins = nil
		fmt.Fprintf(&b, "route: %q on %q to %s: %s\n", r.Name, r.Pattern, r.Upstream, origins)
		fmt.Fprintf(&b, "  methods %v cors %+v\n  cross-site %+v bounds %+v\n", r.Methods, r.CORS, r.CrossSite, r.Bounds)
		if len(r.RateLimits) > 0 {
			fmt.Fprintf(&b, "  cost %+v store down %v limits %+v\n", r.Cost, r.StoreDown, r.RateLimits)
		}
		fmt.Fprintf(&b, "  scrub %v pass %v upstream CORS %v encoded slash %v modes", r.ScrubAlso, r.ScrubPass, r.PassUpstreamCORS, r.AllowEncodedSlash)
		for _, k := range guard.Guards() {
			fmt.Fprint(&b, " ", k, " ", r.Modes[k])
		}
		fmt.Fprintln(&b)
	}
	return b.String()
}

func TestEverythingYAMLSetsEveryField(t *testing.T) {
	var doc any
	if err := yaml.Load(read(t, "testdata/good/everything.yaml"), &doc); err != nil {
		t.Fatal(err)
	}
	set := make(map[string]bool)
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, below := range v {
				set[k] = true
				walk(below)
			}
		case []any:
			for _, below := range v {
				walk(below)
			}
		}
	}
	walk(doc)
	for typ, known := range fields {
		for _, f := range known {
			if !set[f.name] {
				t.Errorf("%s: %s is not set", typ, f.name)
			}
		}
	}
}

func TestBadFilesTellEveryFault(t *testing.T) {
	for _, name := range glob(t, "testdata/bad/*.yaml") {
		t.Run(filepath.Base(name), func(t *testing.T) {
			data := read(t, name)
			l, err := Parse(name, data, hermetic())
			var faults Faults
			if !errors.As(err, &faults) || len(faults) == 0 || l != nil {
				t.Fatalf("got %v, %v; want Faults", l, err)
			}
			if strings.Contains(strings.ReplaceAll(err.Error(), "CANARY_", ""), "CANARY") {
				t.Errorf("a secret shows:\n%v", err)
			}
			compareGolden(t, strings.TrimSuffix(name, "yaml")+"txt", []byte(err.Error()+"\n"))
			schemaErr := validate(t, data)
			switch base := filepath.Base(name); {
			case strings.HasPrefix(base, "structural-") && schemaErr == nil:
				t.Error("the schema accepts it")
			case strings.HasPrefix(base, "semantic-") && schemaErr != nil:
				t.Errorf("the schema refuses it, though it cannot know: %v", schemaErr)
			}
		})
	}
}

// A reference may stand in any text, and whatever is wrong with what it stands for,
// nobody is told what that is.
func TestNoMessageTellsWhatAReferenceStandsFor(t *testing.T) {
	var doc yaml.Node
	if err := yaml.Load(read(t, "testdata/good/everything.yaml"), &doc); err != nil {
		t.Fatal(err)
	}
	var texts []*yaml.Node
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		for i, c := range n.Content {
			if key := n.Kind == yaml.MappingNode && i%2 == 0; !key && c.Kind == yaml.ScalarNode && c.ShortTag() == "!!str" {
				texts = append(texts, c)
			}
			walk(c)
		}
	}
	walk(&doc)
	for _, value := range []string{
		"CANARY", "https://CANARY", "https://CANARY.example/x", "CANARY:80", "http://CANARY:CANARY@x", "/CANARY", "/{CANARY", "10.0.0.0/CANARY",
		"CANARYs", "9CANARY", "\"CANARY\"", "\\\"CANARY", "https://*.CANARY:*:1", "GET CANARY", "CANARY\n",
	} {
		o := hermetic()
		o.Getenv = func(name string) (string, bool) { return value, name == "VALUE" }
		for _, n := range texts {
			was := *n
			n.Value, n.Style = "${env:VALUE}", yaml.DoubleQuotedStyle
			data, err := yaml.Dump(&doc)
			if err != nil {
				t.Fatal(err)
			}
			*n = was
			l, err := Parse("moat.yaml", data, o)
			text := fmt.Sprint(err)
			if l != nil {
				text = l.Warnings.Error()
			}
			if strings.Contains(strings.ToUpper(text), "CANARY") {
				t.Errorf("%q in place of %q at %d:%d:\n%s", value, was.Value, was.Line, was.Column, text)
			}
		}
	}
}

func TestLoadReadsWhatTheFileNames(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "moat.yaml")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("no file: %v", err)
	}
	t.Setenv("MOAT_TEST_PROOF", "from the environment")
	write("proof.txt", "from a file\n")
	write("moat.yaml", `version: 1
public_origins: [http://localhost:8080]
upstreams: {app: {url: http://127.0.0.1:3000, headers: {X-One: "${env:MOAT_TEST_PROOF}", X-Two: "<${file:proof.txt}>"}}}
routes: [{match: /, upstream: app, auth: public}]
`)
	l, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	h := l.Gateway.Upstreams["app"].Headers
	if h["X-One"] != "from the environment" || h["X-Two"] != "<from a file>" {
		t.Errorf("headers %v", h)
	}
	if want := []string{path, filepath.Join(dir, "proof.txt")}; !slices.Equal(l.Files, want) {
		t.Errorf("files %v, want %v", l.Files, want)
	}
	write("proof.txt", strings.Repeat("x", maxFile+1))
	if _, err = Load(path); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("a huge secret: %v", err)
	}
	write("moat.yaml", "#"+strings.Repeat("x", maxFile))
	if _, err = Load(path); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("a huge file: %v", err)
	}
}

func TestRenewSwapsCertificatesAndSaysWhatNeedsARestart(t *testing.T) {
	file := func(cert, admin string) *Loaded {
		return mustLoad(t, append([]string{
			"listen: [127.0.0.1:8080, {address: '127.0.0.1:8443', tls: {certificate: " + cert + ", key: tls.key}}]", "admin: " + admin,
		}, base...)...)
	}
	serial := func(l *Loaded) int64 {
		t.Helper()
		c, err := l.Server.Listeners[1].TLS.GetCertificate(&tls.ClientHelloInfo{})
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf.SerialNumber.Int64()
	}
	running := file("tls.crt", "127.0.0.1:9090")
	if got := serial(running); got != 1 {
		t.Fatalf("certificate %d", got)
	}
	if restart := running.Renew(file("new.crt", "127.0.0.1:9090")); restart != nil {
		t.Errorf("restart for %v", restart)
	}
	if got := serial(running); got != 2 {
		t.Errorf("certificate %d after Renew, want 2", got)
	}
	if restart := running.Renew(file("tls.crt", "127.0.0.1:9091")); !slices.Contains(restart, "admin") {
		t.Errorf("restart for %v, want admin", restart)
	}
	if restart := running.Renew(mustLoad(t, base...)); !slices.Contains(restart, "listen") {
		t.Errorf("restart for %v, want listen", restart)
	}
	if got := serial(running); got != 1 {
		t.Errorf("certificate %d, want that of the last file that had one", got)
	}
}
