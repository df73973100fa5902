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
	"github.com/moat-gateway/moat/guard/bot"
)

// now is the time of every test.
var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// variables are the environment of every test. No message may tell what they hold, so
// each value has CANARY in it.
var variables = map[string]string{
	"GATE_PROOF": "CANARY-proof", "TICKET_SECRET": "CANARY-secret-of-32-bytes-or-more", "ALERT_PATH": "CANARY-path", "WEBHOOK_SECRET": "CANARYCANARYCANARYCANARYCANARYCANARYCANARYA=", "BACKEND": "127.0.0.1:3000", "CERT": "tls.crt", "EMPTY": "", "LINES": "CANARY\r\nX: y", "SLASH_8": "/8",
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
			case "jwks.json":
				return []byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`), nil
			case "datacentres.txt":
				return []byte("192.0.2.0/24 # documentation\nAS64500\n"), nil
			case "bad-list.txt":
				return []byte("192.0.2.0/24\n192.0.2.300\nASx\n"), nil
			case "asns.tsv":
				return []byte("198.51.100.0\t198.51.100.255\t64500\tDE\tEXAMPLE\n"), nil
			case "agent.json":
				return []byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`), nil
			case "revoked.txt":
				return []byte("sub mallory\n"), nil
			case "token.txt":
				return []byte("CANARY-token\r\n"), nil
			case "forbidden.key":
				return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
			}
			if strings.HasPrefix(filepath.ToSlash(name), "testdata/openapi/") {
				return os.ReadFile(name)
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
		if i := u.Identity; len(i.Headers) > 0 {
			token := ""
			if i.Token != nil {
				token = fmt.Sprintf("%+v", *i.Token)
			}
			fmt.Fprintf(&b, "  identity: %v %s\n", i.Headers, token)
		}
		if p := u.Credential; !p.Zero() {
			o := p.OAuth
			fmt.Fprintln(&b, "  credential:", keys(p.Headers), len(p.Bearer), p.Basic.Username, len(p.Basic.Password), keys(p.Query), len(p.Secrets), "echo", p.DangerouslyAllowEcho)
			fmt.Fprintln(&b, "  oauth:", o.TokenURL, o.ClientID, len(o.ClientSecret), o.Scopes, o.Audience, o.Post)
		}
	}
	if a := l.Gateway.Alerts; a != nil {
		fmt.Fprintln(&b, "alerts from", a.Instance)
		for _, w := range a.Webhooks {
			fmt.Fprintln(&b, "  webhook:", w.Name, w.URL.Host, len(w.Secrets), w.Format, w.Timeout, w.RootCAs != nil, w.DangerouslyAllowNetworks)
		}
		for _, r := range a.Rules {
			fmt.Fprintf(&b, "  rule: %+v\n", r)
		}
	}
	if l.Valkey != nil {
		fmt.Fprintln(&b, "valkey:", l.Valkey, l.Valkey.DB, l.Valkey.Prefix, l.Valkey.Timeout, l.Valkey.SentinelUsername, len(l.Valkey.Password), len(l.Valkey.SentinelPassword))
	}
	if t := l.Gateway.Tickets; t != nil {
		fmt.Fprintf(&b, "tickets: %d secrets, %d issuers, %s, %d uses, %d bytes, %d origins, limits %+v, challenge %+v %s\n", len(t.Policy.Secrets), len(t.Policy.Issuers),
			t.Policy.Lifetime, t.Policy.Uses, t.Memory, t.Origins.Len(), t.RateLimits, t.Challenge, t.ChallengeMode)
	}
	if o := l.Gateway.Bots; o != nil {
		p := o.Policy
		if p.Lists == nil {
			p.Lists = new(bot.Lists)
		}
		fmt.Fprintf(&b, "bots: modes %v challenge %d slow %d for %d tarpit %d, %d for %s, deny %d, systems %v\n", p.Modes, p.Challenge, p.Slow, o.SlowCost, p.Tarpit, o.TarpitAtOnce, o.TarpitFor, p.Deny, p.Lists.ASNs != nil)
		for _, l := range p.Lists.Lists {
			fmt.Fprintln(&b, "  list:", l.Name, l.Score)
		}
		for _, r := range o.Robots {
			fmt.Fprintln(&b, "  robot:", r.Name, r.UserAgent, r.Domains, r.Agent, len(r.Keys))
		}
	}
	a := l.Gateway.Callers
	for _, i := range a.JWT {
		fmt.Fprintf(&b, "jwt %s: %s %v %v %q, %d bytes of keys, %d of a secret, %d secrets before it, discover %v, types %q leeway %s age %s required %v claims %q %q proof %v revoked %v\n", i.Source, i.Issuer, i.Audiences,
			i.Algorithms, i.JWKSURL, len(i.JWKS), len(i.Secret), len(i.PastSecrets), i.Discover, i.Types, i.Leeway, i.MaxAge, i.Required, i.ScopeClaim, i.RolesClaim, i.RequireProof, i.Revoked != nil)
	}
	for i, k := range a.Keys {
		fmt.Fprintf(&b, "api key %s: %s in %s\n", k.Source, k.Header, l.KeyFiles[i].Path)
	}
	for _, p := range a.Introspection {
		p.ClientSecret = fmt.Sprint(len(p.ClientSecret))
		fmt.Fprintf(&b, "introspection: %+v\n", p)
	}
	for _, p := range a.Logins {
		p.ClientSecret, p.Public = fmt.Sprint(len(p.ClientSecret)), nil
		fmt.Fprintf(&b, "login: %+v\n", p)
	}
	a.CSRF.Secrets = nil
	fmt.Fprintf(&b, "csrf: %+v, for %d origins; %d identity keys\n", a.CSRF, a.Origins.Len(), len(a.IdentityKeys))
	for _, r := range l.Gateway.Routes {
		origins := fmt.Sprint(r.Origins.Len(), " origins, patterns ", r.Origins.Patterns(), ", any ", r.Origins.Any())
		r.Origins = nil
		fmt.Fprintf(&b, "route: %q on %q to %s: %s\n", r.Name, r.Pattern, r.Upstream, origins)
		fmt.Fprintf(&b, "  methods %v cors %+v\n  cross-site %+v bounds %+v\n", r.Methods, r.CORS, r.CrossSite, r.Bounds)
		if r.Fetch != nil {
			fmt.Fprintf(&b, "  fetch %+v\n", *r.Fetch)
		}
		if r.Body != nil {
			p := *r.Body
			operations := 0
			if p.API != nil {
				operations = len(p.API.Operations())
			}
			fmt.Fprintf(&b, "  body: %d operations, schema %v, strict %v, types %v, %d bytes, json %+v, multipart %+v, responses %v\n", operations, p.Schema != nil, p.StrictJSON, p.Types, p.Bytes, p.JSON, p.Multipart, p.Responses)
		}
		if len(r.RateLimits) > 0 {
			fmt.Fprintf(&b, "  cost %+v store down %v limits %+v\n", r.Cost, r.StoreDown, r.RateLimits)
		}
		if r.Model != nil {
			fmt.Fprintf(&b, "  model %+v\n", *r.Model)
		}
		if len(r.Budgets) > 0 {
			fmt.Fprintf(&b, "  budgets %+v in %q\n", r.Budgets, l.SpentFile)
		}
		if len(r.Sources) > 0 {
			fmt.Fprintf(&b, "  auth %v authorize %+v\n", r.Sources, r.Authorize)
		}
		fmt.Fprintf(&b, "  anonymous %v csrf %v account %q cookies %+v\n", r.Anonymous, r.CSRF, r.Account, r.Cookies)
		if r.Tickets != gateway.TicketsOff {
			fmt.Fprintf(&b, "  tickets %v streamed body %v no script %v\n", r.Tickets, r.StreamedBody, r.NoScript)
		}
		fmt.Fprintf(&b, "  scrub %v pass %v upstream CORS %v encoded slash %v caller's credentials %v modes", r.ScrubAlso, r.ScrubPass, r.PassUpstreamCORS, r.AllowEncodedSlash, r.CallerCredentials)
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

// filesOnly reports whether nothing can be served with what was loaded.
func filesOnly(l *Loaded) bool {
	return len(l.Files) > 0 && len(l.Gateway.Routes)+len(l.Gateway.Upstreams)+len(l.Server.Listeners) == 0 && l.source == nil
}

func TestBadFilesTellEveryFault(t *testing.T) {
	for _, name := range glob(t, "testdata/bad/*.yaml") {
		t.Run(filepath.Base(name), func(t *testing.T) {
			data := read(t, name)
			l, err := Parse(name, data, hermetic())
			var faults Faults
			if !errors.As(err, &faults) || len(faults) == 0 || !filesOnly(l) {
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
	values := []string{
		"CANARY", "/{CANARY", "\\\"CANARY", "https://CANARY", "https://CANARY.example/x", "CANARY:80", "http://CANARY:CANARY@x", "/CANARY", "10.0.0.0/CANARY",
		"CANARYs", "9CANARY", "\"CANARY\"", "https://*.CANARY:*:1", "GET CANARY", "CANARY\n",
	}
	// Of the values each text meets some, and the texts around it others.
	some := 5
	if testing.Short() {
		some = 1 // the inner loop has a minute for everything
	}
	type variant struct {
		was  yaml.Node
		data []byte
	}
	var variants []variant
	for _, n := range texts {
		was := *n
		n.Value, n.Style = "${env:VALUE}", yaml.DoubleQuotedStyle
		data, err := yaml.Dump(&doc)
		if err != nil {
			t.Fatal(err)
		}
		*n = was
		variants = append(variants, variant{was, data})
	}
	for i, value := range values {
		t.Run(value, func(t *testing.T) {
			t.Parallel()
			o := hermetic()
			o.Getenv = func(name string) (string, bool) { return value, name == "VALUE" }
			for j, v := range variants {
				if (i+j)%len(values) >= some {
					continue
				}
				l, err := Parse("moat.yaml", v.data, o)
				text := fmt.Sprint(err)
				if err == nil {
					text = l.Warnings.Error()
				}
				if strings.Contains(strings.ToUpper(text), "CANARY") {
					t.Errorf("%q in place of %q at %d:%d:\n%s", value, v.was.Value, v.was.Line, v.was.Column, text)
				}
			}
		})
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
	remembers := func(bytes int) *Loaded {
		l := mustLoad(t, base...)
		l.Gateway.Tickets = &gateway.Tickets{Memory: bytes}
		return l
	}
	if restart := remembers(1 << 20).Renew(remembers(2 << 20)); !slices.Equal(restart, []string{"tickets.memory"}) {
		t.Errorf("restart for %v, want tickets.memory", restart)
	}
	if restart := running.Renew(mustLoad(t, base...)); !slices.Contains(restart, "listen") {
		t.Errorf("restart for %v, want listen", restart)
	}
	if got := serial(running); got != 1 {
		t.Errorf("certificate %d, want that of the last file that had one", got)
	}
}

func TestProcessesThatShareAStoreNeedOneKey(t *testing.T) {
	lines := []string{
		"version: 1", "public_origins: [http://localhost:8080]",
		"upstreams: {app: {url: http://127.0.0.1:3000, identity: {token: {header: X-Id, audience: app}}}}",
		"routes: [{match: /, upstream: app, auth: public}]",
		"store: {valkey: 127.0.0.1:6379}",
	}
	if text := mustLoad(t, lines...).Warnings.Error(); !strings.Contains(text, "write identity_keys") {
		t.Errorf("%s", text)
	}
	if text := mustLoad(t, lines[:4]...).Warnings.Error(); strings.Contains(text, "identity_keys") {
		t.Errorf("%s", text)
	}
}
