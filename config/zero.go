package config

import (
	"cmp"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"

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
	// Credentials lets pages send cookies.
	Credentials bool
	// RateLimit is what each client may ask for, such as "60/m burst 20"; empty, no limit.
	RateLimit string
	// Browserless is "allow" or "deny"; empty, "deny".
	Browserless string
	// Report makes every guard record, and carry out nothing.
	Report bool
}

// flags are the paths of a file and the flags of `moat run` that they come from.
var flags = []struct{ path, flag string }{
	{"upstreams", "--upstream"},
	{"public_origins", "--public-origin"},
	{"listen", "--listen"},
	{"admin", "--admin"},
	{"rate_limits", "--rate-limit"},
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
func Zero(z ZeroConfig) (*Loaded, error) {
	root := defaultOf[file]()
	d := &decoder{report: report{at: make(map[string]position), flag: flagOf}, root: &root}
	public, reason := z.publicOrigins(string(root.Listen[0].Address))
	if reason != "" {
		d.fault("public_origins", "", reason)
	}
	var n yaml.Node
	if err := n.Encode(z.file(public)); err != nil {
		return nil, err
	}
	d.value(&n, reflect.ValueOf(d.root).Elem(), "", field{})
	return d.compile()
}

// file is the file that the flags stand for.
func (z ZeroConfig) file(publicOrigins []string) map[string]any {
	headers := defaultOf[policy]().CORS.RequestHeaders
	up := make(map[string]any)
	route := map[string]any{
		"match": "/", "name": "all", "upstream": "upstream", "auth": "public", "origins": added(nil, z.Origins...),
		"cors": map[string]any{"credentials": z.Credentials, "request_headers": added(headers, z.AllowHeaders...)},
	}
	f := map[string]any{
		"version": 1, "public_origins": publicOrigins, "upstreams": map[string]any{"upstream": up}, "routes": []any{route},
	}
	// What is empty is left out, so that the default holds.
	for _, o := range []struct {
		block       map[string]any
		name, value string
	}{{up, "url", z.Upstream}, {route, "browserless", z.Browserless}, {f, "listen", z.Listen}, {f, "admin", z.Admin}} {
		if o.value != "" {
			o.block[o.name] = o.value
		}
	}
	if z.RateLimit != "" {
		f["rate_limits"] = map[string]any{"client": z.RateLimit}
		route["rate_limits"] = "client"
	}
	if z.Report {
		route["modes"] = map[string]any{"scrub": "report", "cors": "report", "bounds": "report", "cross_site": "report", "rate_limit": "report"}
	}
	return f
}

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
