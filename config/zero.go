package config

import (
	"cmp"
	"maps"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	yaml "go.yaml.in/yaml/v4"
)

// ZeroConfig is what `moat run` takes from flags in place of a file: one upstream, one
// route for everything, one list of pages that may call.
type ZeroConfig struct {
	// Upstream is the backend's URL.
	Upstream string
	// Origins lists the pages that may call, as in a policy. Same-origin pages always may.
	Origins []string
	// PublicOrigins are those under which clients know the gate. Where it listens on
	// loopback they can be told from the address.
	PublicOrigins []string
	// Listen and Admin are addresses; empty, the defaults of a file.
	Listen, Admin string
	// AllowHeaders are request headers that script may set, beside the default ones.
	AllowHeaders []string
	// Credential are headers that moat sets in the place of the caller's, as
	// "Authorization: Bearer ${env:NAME}". Their secrets are references.
	Credential []string
	// Credentials lets pages send cookies.
	Credentials bool
	// Preset is the name of the starter file into which the flags are put; empty, none.
	Preset string
	// Models are those that the preset's page may call, and what a million tokens of input and output
	// cost, as "NAME=0.25/2"; empty, those of the preset.
	Models []string
	// RateLimit is what each client may ask for, such as "60/m burst 20"; empty, no limit.
	RateLimit string
	// Browserless is "allow" or "deny"; empty, "deny".
	Browserless string
	// Report makes every guard record, and carry out nothing.
	Report bool
}

// credentialPath is where a file has what --credential says.
const credentialPath = "upstreams.upstream.credential.headers" //nolint:gosec // a path of the file.

// flags are the paths of a file and the flags of `moat run` that they come from.
var flags = []struct{ path, flag string }{
	{credentialPath, "--credential"},
	{"upstreams.model.credential", "--credential"},
	{"upstreams", "--upstream"},
	{"public_origins", "--public-origin"},
	{"listen", "--listen"},
	{"admin", "--admin"},
	{"rate_limits", "--rate-limit"},
	{"models", "--model"},
	{"policies.page.origins", "--origin"},
	{"policies.page.cors.request_headers", "--allow-header"},
	{"policies.page.cors.credentials", "--credentials"},
	{"policies.page.browserless", "--browserless"},
	{"routes[0].origins", "--origin"},
	{"routes[0].cors.request_headers", "--allow-header"},
	{"routes[0].cors.credentials", "--credentials"},
	{"routes[0].browserless", "--browserless"},
}

func flagOf(path string) string {
	for _, f := range flags {
		if strings.HasPrefix(path, f.path) {
			return f.flag
		}
	}
	return path
}

// Zero is Parse for flags. Its faults name a flag, and no file.
func Zero(z ZeroConfig, o Options) (*Loaded, error) {
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	root := defaultOf[file]()
	d := &decoder{report: report{at: make(map[string]position), flag: flagOf}, root: &root, opts: o}
	if z.Preset != "" && !slices.Contains(Presets(), z.Preset) {
		return nil, Faults{{What: "--preset", Value: z.Preset, Reason: "no such preset; there is " + strings.Join(Presets(), ", ")}}
	}
	public, reason := z.publicOrigins(string(root.Listen[0].Address))
	if reason != "" {
		d.fault("public_origins", "", reason)
	}
	var n yaml.Node
	if err := n.Encode(z.file(public, z.credential(d), z.models(d))); err != nil {
		return nil, err
	}
	d.value(&n, reflect.ValueOf(d.root).Elem(), "", field{})
	if z.Preset != "" && len(z.Models) == 0 {
		d.warn("models", "", "missing: only "+oneOf(keys(root.Models))+" can be called, and budgets count its tokens at example prices; name your provider's model, and what a million tokens of input and output cost, such as --model gpt-5-mini=0.25/2")
	}
	return d.compile()
}

// file is the file that the flags stand for.
func (z ZeroConfig) file(publicOrigins []string, credential, models map[string]any) map[string]any {
	f, up, route := z.preset()
	f["version"], f["public_origins"] = 1, publicOrigins
	headers := defaultOf[policy]().CORS.RequestHeaders
	if z.Preset != "" {
		headers = added(headers, "*") // as it has
	}
	route["origins"] = added(nil, z.Origins...)
	route["cors"] = map[string]any{"credentials": z.Credentials, "request_headers": added(headers, z.AllowHeaders...)}
	// What is empty is left out, so that the default holds.
	for _, o := range []struct {
		block       map[string]any
		name, value string
	}{{up, "url", z.Upstream}, {route, "browserless", z.Browserless}, {f, "listen", z.Listen}, {f, "admin", z.Admin}} {
		if o.value != "" {
			o.block[o.name] = o.value
		}
	}
	if len(credential) > 0 {
		up["credential"] = map[string]any{"headers": credential}
	}
	if z.RateLimit != "" {
		limits, _ := f["rate_limits"].(map[string]any)
		name := "client"
		if limits["visitor"] != nil {
			name = "visitor" // the preset's
		}
		limits[name] = z.RateLimit
		route["rate_limits"] = slices.Sorted(maps.Keys(limits))
	}
	if len(z.Models) > 0 {
		f["models"] = models
	}
	if z.Report {
		report := make(map[string]any)
		for _, guard := range fieldNames(fields[reflect.TypeFor[modes]()]) {
			report[guard] = "report"
		}
		route["modes"] = report
	}
	return f
}

// models are those of --model, by name. What is no price the decoder complains about.
func (z ZeroConfig) models(d *decoder) map[string]any {
	models := make(map[string]any)
	for _, text := range z.Models {
		name, prices, _ := strings.Cut(text, "=")
		input, output, ok := strings.Cut(prices, "/")
		switch {
		case z.Preset == "":
			d.fault("models", text, "calls to models are read and bounded with --preset public-ai alone, or with --config")
		case !ok || name == "" || input == "" || output == "":
			d.fault("models", text, "not a model and its prices; write NAME=INPUT/OUTPUT, what a million tokens of each cost, such as gpt-5-mini=0.25/2")
		case models[name] != nil:
			d.fault("models", text, "has its prices twice")
		default:
			models[name] = map[string]any{"input": input, "output": output}
		}
	}
	return models
}

// credential are the headers of --credential, by name.
func (z ZeroConfig) credential(d *decoder) map[string]any {
	const example = `'Authorization: Bearer ${env:NAME}'`
	headers := make(map[string]any)
	for _, text := range z.Credential {
		name, value, ok := strings.Cut(text, ":")
		value = strings.TrimSpace(value)
		switch {
		case !ok || strings.Contains(name, "$"):
			d.fault(credentialPath, "", "not a header; write it as "+example)
		case !references.MatchString(value):
			d.fault(credentialPath, "", "a secret must not stand on the command line, where every program of this machine can read it; put it into the environment variable NAME and write "+example+", in single quotes, or the shell replaces it; ${file:PATH} reads it from a file")
		case headers[name] != nil:
			d.fault(credentialPath, "", "sets the same header twice")
		default:
			headers[name] = value
		}
	}
	return headers
}

// preset is the file before the flags are put in, its upstream, and what says which pages may
// call: a policy, or a route.
func (z ZeroConfig) preset() (f, up, page map[string]any) {
	if z.Preset == "" {
		up, page = make(map[string]any), map[string]any{"match": "/", "name": "all", "upstream": "upstream", "auth": "public"}
		return map[string]any{"upstreams": map[string]any{"upstream": up}, "routes": []any{page}, "rate_limits": make(map[string]any)}, up, page
	}
	text, _ := Starter(z.Preset)
	if err := yaml.Load(text, &f); err != nil {
		panic(err) // it is embedded
	}
	// These are about the origins of the file, and about what stands in front of it there.
	delete(f, "tests")
	delete(f, "trusted_proxies")
	upstreams, _ := f["upstreams"].(map[string]any)
	up, _ = upstreams["model"].(map[string]any)
	delete(up, "url")
	policies, _ := f["policies"].(map[string]any)
	page, _ = policies["page"].(map[string]any)
	return f, up, page
}

// Presets returns the names of the starter files that flags can be put into.
func Presets() []string { return []string{"public-ai"} }

// publicOrigins are the origins that are named, and those under which this machine
// itself reaches the address that it listens on; or it says what is missing.
func (z ZeroConfig) publicOrigins(defaultListen string) (origins []string, reason string) {
	host, port, err := net.SplitHostPort(cmp.Or(z.Listen, defaultListen))
	if err != nil {
		return added([]string{"http://localhost"}, z.PublicOrigins...), "" // the decoder complains about the address
	}
	ip, err := netip.ParseAddr(host)
	local := host == "localhost" || err == nil && ip.IsLoopback()
	everywhere := host == "" || err == nil && ip.IsUnspecified()
	origins = added(nil, z.PublicOrigins...)
	if port != "0" && (local || everywhere) {
		hosts := []string{"localhost", "127.0.0.1", "::1"}
		if err == nil && local {
			hosts = added([]string{ip.String()}, hosts...)
		}
		for _, h := range hosts {
			origins = added(origins, "http://"+strings.TrimSuffix(net.JoinHostPort(h, port), ":80"))
		}
	}
	switch {
	case len(z.PublicOrigins) > 0:
	case !local:
		return []string{"http://localhost"}, "missing: other machines can reach what --listen names, so say under which origin clients know the gate, such as https://api.example.com"
	case port == "0":
		return []string{"http://localhost"}, "missing: with port 0 in --listen nobody knows the port beforehand, so say under which origin clients know the gate"
	}
	return origins, ""
}

// added appends the texts that the list does not have yet, in any case. The list itself
// is not changed, and the result is not nil.
func added(list []string, more ...string) []string {
	list = append([]string{}, list...)
	for _, m := range more {
		if !slices.ContainsFunc(list, func(s string) bool { return strings.EqualFold(s, m) }) {
			list = append(list, m)
		}
	}
	return list
}
