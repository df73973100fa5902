package config

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/moat-gateway/moat/web"
)

// Derive writes a configuration for the API that an OpenAPI document describes: a route for each
// path, or for each method where they differ in who may call. name is the file that it is for, and
// doc the document's. No route is public unless the document says security: [] about it. Its error
// is of type Faults where the document is at fault.
func Derive(name, doc, upstream string, o Options) ([]byte, error) {
	rel, err := relative(filepath.Dir(name), doc)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be reached from %s: %w", doc, name, err)
	}
	c := &compiler{
		decoder: &decoder{report: report{file: name, at: make(map[string]position), flag: func(string) string { return "--openapi" }}, opts: o}, f: &file{}, out: &Loaded{},
		documents: make(map[documentKey]*compiledDocument),
	}
	d := c.document(documentKey{name: filepath.ToSlash(rel), openapi: true}, "")
	if len(c.faults) > 0 {
		return nil, c.faults.sorted()
	}
	t, err := d.doc.openAPI()
	if err != nil {
		return nil, err // it has been loaded before
	}
	w := &deriving{doc: t, document: filepath.ToSlash(rel), upstream: upstream, schemes: make(map[string]string)}
	text := w.write()
	// What is written here must pass moat check.
	if _, err := Parse(name, text, o); err != nil {
		return nil, fmt.Errorf("no routes can be derived that pass moat check; write them by hand. What was derived has these faults:\n%v", err) //nolint:errorlint // Faults would be told without this sentence.
	}
	return text, nil
}

// deriving is a configuration that is being written.
type deriving struct {
	doc                *openapi3.T
	document, upstream string
	prefix             string
	schemes            map[string]string // names under auth, by those of the document
	unsaid             bool              // an operation does not say who may call
}

// access is who may call an operation.
type access struct {
	auth      []string
	scopes    []string
	anonymous bool
	note      string
}

func (a access) equal(b access) bool {
	return slices.Equal(a.auth, b.auth) && slices.Equal(a.scopes, b.scopes) && a.anonymous == b.anonymous && a.note == b.note
}

// unsaidName is the name under auth of what the document does not say.
const unsaidName = "callers"

func (w *deriving) write() []byte {
	var b bytes.Buffer
	origins := w.origins()
	w.names()
	routes := w.routes()
	fmt.Fprintf(&b, `# Derived from %s by moat init. It is a beginning: read it, and fill in what the document does not
# say. Run moat check after every change: it tells which operations no route leads to.
version: 1
`, w.document)
	if !strings.HasPrefix(strings.Join(origins, " "), "http:") {
		b.WriteString(`
# A web server on this machine ends TLS and passes requests on to here.
listen: 127.0.0.1:8080
trusted_proxies:
  from: [127.0.0.1/32]
  header: X-Forwarded-For
`)
	}
	if len(origins) == 0 {
		origins = []string{"https://api.example.com"}
		b.WriteString("\n# The document names no server with an https: origin. Write the origins under which clients know the API.")
	}
	fmt.Fprintf(&b, "\npublic_origins: [%s]\n\nupstreams:\n  api: {url: %q}\n", strings.Join(origins, ", "), w.upstream)
	w.auth(&b, origins[0])
	fmt.Fprintf(&b, `
policies:
  api:
    # Programs and mobile apps are no browsers. Remove this if only pages call.
    browserless: allow
    # Pages of other origins that may call, such as https://app.example.com.
    origins: []
    # Parameters, content types and bodies have to be what the document declares.
    body: {openapi: %q%s}

routes:
%s`, w.document, w.prefixField(), routes)
	return b.Bytes()
}

// origins are those of the document's servers under which the gate can be known.
func (w *deriving) origins() (out []string) {
	for i, s := range w.doc.Servers {
		text := s.URL
		for name, v := range s.Variables {
			text = strings.ReplaceAll(text, "{"+name+"}", v.Default)
		}
		u, err := url.Parse(text)
		if err != nil {
			continue
		}
		if i == 0 {
			w.prefix = strings.TrimSuffix(u.Path, "/")
		}
		o, err := web.ParseOrigin(u.Scheme + "://" + u.Host)
		if err == nil && (o.Scheme() == "https" || o.Scheme() == "http" && o.Loopback()) && !slices.Contains(out, o.String()) {
			out = append(out, o.String())
		}
	}
	return out
}

// prefixField is written where the servers' paths differ: the routes follow the first.
func (w *deriving) prefixField() string {
	if len(w.doc.Servers) < 2 || w.prefix == "" {
		return ""
	}
	return fmt.Sprintf(", prefix: %q", w.prefix)
}

var notName = regexp.MustCompile(`[^a-z0-9_-]+`)

// names gives the schemes of the document their names under auth.
func (w *deriving) names() {
	if w.doc.Components == nil {
		return
	}
	taken := map[string]bool{public: true, unsaidName: true}
	for _, scheme := range slices.Sorted(maps.Keys(w.doc.Components.SecuritySchemes)) {
		name := strings.Trim(notName.ReplaceAllString(strings.ToLower(scheme), "-"), "-_")
		name = cmp.Or(name[:min(len(name), 60)], "scheme")
		for n, base := 2, name; taken[name]; n++ {
			name = fmt.Sprintf("%s-%d", base, n)
		}
		taken[name] = true
		w.schemes[scheme] = name
	}
}

// access is who may call an operation, as the document says.
func (w *deriving) access(op *openapi3.Operation) (a access) {
	required := op.Security
	if required == nil && w.doc.Security != nil {
		required = &w.doc.Security
	}
	switch {
	case required == nil:
		w.unsaid = true
		return access{auth: []string{unsaidName}}
	case len(*required) == 0:
		return access{auth: []string{public}}
	}
	for _, r := range *required {
		if len(r) == 0 {
			a.anonymous = true
			continue
		}
		schemes := slices.Sorted(maps.Keys(r))
		if len(r) > 1 {
			// Never one or the other: that would let in whoever has the least of them.
			one := max(0, slices.IndexFunc(schemes, func(s string) bool { return !w.isKey(s) }))
			a.note = "The document asks for all of " + oneLine(strings.Join(schemes, ", ")) + " at once; moat asks for one. Check the others in the upstream."
			schemes = schemes[one : one+1]
		}
		for _, scheme := range schemes {
			if name := w.schemes[scheme]; name != "" && !slices.Contains(a.auth, name) {
				a.auth = append(a.auth, name)
			}
			for _, scope := range r[scheme] {
				if !slices.Contains(a.scopes, scope) {
					a.scopes = append(a.scopes, scope)
				}
			}
		}
	}
	if len(*required) > 1 && len(a.scopes) > 0 {
		a.note = cmp.Or(a.note, "The document has other scopes for each way to call; these are all of them together.")
	}
	if len(a.auth) == 0 {
		// security: [{}] lets everybody call, and is not the plain word.
		w.unsaid = true
		a.auth = []string{unsaidName}
	}
	return a
}

// isKey reports whether a scheme of the document is an API key.
func (w *deriving) isKey(scheme string) bool {
	if w.doc.Components == nil || w.doc.Components.SecuritySchemes[scheme] == nil {
		return false
	}
	s := w.doc.Components.SecuritySchemes[scheme].Value
	return s != nil && s.Type == "apiKey"
}

func (w *deriving) auth(b *bytes.Buffer, audience string) {
	b.WriteString("\nauth:\n")
	begin := b.Len()
	issuers := 0
	jwt := func(name, issuer, note string) {
		if issuers++; issuer == "" {
			issuer = "https://id.example.com"
			if issuers > 1 {
				issuer = "https://" + strings.ReplaceAll(name, "_", "-") + ".example.com"
			}
		}
		fmt.Fprintf(b, "  # %s\n  %s:\n    jwt:\n      issuer: %s # fill in: exactly the tokens' iss\n      audience: %s # fill in: what the API is called in their aud\n      algorithms: [RS256, ES256] # those that the issuer signs with\n", note, name, issuer, audience)
	}
	for _, scheme := range slices.Sorted(maps.Keys(w.schemes)) {
		s := w.doc.Components.SecuritySchemes[scheme].Value
		name := w.schemes[scheme]
		kind := fmt.Sprintf("securitySchemes.%s is %s", oneLine(scheme), oneLine(s.Type))
		switch {
		case s.Type == "apiKey" && s.In == "header" && !strings.EqualFold(s.Name, "Authorization"):
			fmt.Fprintf(b, "  # %s in the header %s. moat key create --config FILE --owner NAME makes keys.\n  %s:\n    api_key: {file: keys.db, header: %q}\n", kind, oneLine(s.Name), name, s.Name)
		case s.Type == "apiKey":
			fmt.Fprintf(b, "  # %s in the %s; moat takes keys in a header of their own alone.\n  %s:\n    api_key: {file: keys.db}\n", kind, oneLine(s.In), name)
		case s.Type == "openIdConnect":
			issuer := strings.TrimSuffix(s.OpenIdConnectUrl, "/.well-known/openid-configuration")
			if u, err := url.Parse(issuer); err != nil || u.Scheme != "https" || u.Host == "" {
				issuer = ""
			}
			jwt(name, issuer, kind+": access tokens of that issuer. For people in browsers see login in docs/config.md.")
		case s.Type == "oauth2", s.Type == "http" && strings.EqualFold(s.Scheme, "bearer"):
			jwt(name, "", kind+": a JWT, or, if tokens are opaque, write introspection in the place of jwt.")
		default:
			jwt(name, "", kind+" "+oneLine(s.Scheme)+", which moat does not have. Tokens stand here in its place: choose one of docs/config.md.")
		}
	}
	if w.unsaid {
		jwt(unsaidName, "", "The document does not say who may call some operations. If anybody may, write auth: public on those routes.")
	}
	if b.Len() == begin {
		b.Truncate(begin - len("\nauth:\n"))
	}
}

// oneLine is a text of the document within a comment.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 {
			return ' '
		}
		return r
	}, s)
	return s[:min(len(s), 80)]
}

func (w *deriving) routes() string {
	var b strings.Builder
	for _, path := range slices.Sorted(maps.Keys(w.doc.Paths.Map())) {
		operations := w.doc.Paths.Value(path).Operations()
		type group struct {
			access
			methods []string
		}
		var groups []group
		for _, method := range slices.Sorted(maps.Keys(operations)) {
			if method == http.MethodTrace || method == http.MethodConnect {
				continue
			}
			a := w.access(operations[method])
			i := slices.IndexFunc(groups, func(g group) bool { return g.equal(a) })
			if i < 0 {
				i = len(groups)
				groups = append(groups, group{access: a})
			}
			groups[i].methods = append(groups[i].methods, method)
		}
		for _, g := range groups {
			if len(groups) == 1 {
				w.route(&b, "", path, g.methods, g.access)
				continue
			}
			for _, method := range g.methods {
				w.route(&b, method, path, nil, g.access)
			}
		}
	}
	return b.String()
}

func (w *deriving) route(b *strings.Builder, method, path string, methods []string, a access) {
	if a.note != "" {
		fmt.Fprintf(b, "  # %s\n", a.note)
	}
	fmt.Fprintf(b, "  - match: %q\n    upstream: api\n    policy: api\n", strings.TrimSpace(method+" "+w.prefix+pattern(path)))
	if methods != nil {
		if slices.Contains(methods, http.MethodGet) && !slices.Contains(methods, http.MethodHead) {
			methods = append(slices.Clone(methods), http.MethodHead)
			slices.Sort(methods)
		}
		fmt.Fprintf(b, "    methods: [%s]\n", strings.Join(methods, ", "))
	}
	fmt.Fprintf(b, "    auth: [%s]\n", strings.Join(a.auth, ", "))
	switch {
	case a.auth[0] == public:
		return
	case len(a.scopes) > 0:
		fmt.Fprintf(b, "    authorize: {scopes: [")
		for i, s := range a.scopes {
			if i > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(b, "%q", s)
		}
		b.WriteString("]}\n")
	default:
		b.WriteString("    authorize: authenticated\n")
	}
	if a.anonymous {
		b.WriteString("    anonymous: allow # the document says that credentials are optional\n")
	}
}

var wildcards = regexp.MustCompile(`\{([^}]*)\}`)

// pattern is a path of the document as ServeMux has it: a wildcard is a whole segment, and its name
// one of Go's.
func pattern(path string) string {
	segments := strings.Split(path, "/")
	taken := make(map[string]bool)
	for i, s := range segments {
		m := wildcards.FindStringSubmatch(s)
		if m == nil {
			continue
		}
		name := notIdentifier.ReplaceAllString(m[1], "_")
		if name == "" || name[0] >= '0' && name[0] <= '9' {
			name = "p" + name
		}
		for n, base := 2, name; taken[name]; n++ {
			name = fmt.Sprintf("%s%d", base, n)
		}
		taken[name] = true
		segments[i] = "{" + name + "}"
	}
	out := strings.Join(segments, "/")
	if strings.HasSuffix(out, "/") {
		out += "{$}" // that path, and not all below it
	}
	return out
}

var notIdentifier = regexp.MustCompile(`[^A-Za-z0-9_]`)

// relative is the way from a folder to a file, also where only one of them is written from the root.
func relative(dir, file string) (string, error) {
	if filepath.IsAbs(dir) == filepath.IsAbs(file) {
		return filepath.Rel(dir, file)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if file, err = filepath.Abs(file); err != nil {
		return "", err
	}
	return filepath.Rel(dir, file)
}
