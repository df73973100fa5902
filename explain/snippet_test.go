package explain

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/browser"
)

const (
	ownPage  = "https://app.example.com"
	stranger = "https://evil.example"
)

func TestSnippets(t *testing.T) {
	for _, c := range []struct {
		name, text string
		kind       SnippetKind
		// What Access-Control-Allow-Origin says to the own page and to the stranger's, and
		// to the origins beside these.
		own, stranger string
		also          map[string]string
		header        browser.Header // others that a preflight of the own page has
		status        int            // of the preflight
		note          string
	}{
		{
			name: "header lines", kind: SnippetHeaders, own: "*", stranger: "*", status: 204,
			text: "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nVary: Origin\r\n",
		},
		{
			name: "nginx, everybody's origin", kind: SnippetNginx, own: ownPage, stranger: stranger, status: 204,
			text:   `location / { add_header Access-Control-Allow-Origin $http_origin always; add_header 'Access-Control-Allow-Credentials' "true" always; } # all`,
			header: browser.Header{{Name: "Access-Control-Allow-Credentials", Value: "true"}},
			note:   "Who answers a preflight",
		},
		{
			name: "nginx, a map", kind: SnippetNginx, own: ownPage, status: 204,
			text: `map $http_origin $cors { default ""; "https://app.example.com" $http_origin; ~^https://[a-z]+\.example\.org$ $http_origin; }
				server { add_header Access-Control-Allow-Origin $cors always; add_header Vary Origin always; }`,
			also: map[string]string{"https://a.example.org": "https://a.example.org", "https://a.example.org.evil.example": ""},
		},
		{
			name: "nginx, a pattern without an end", kind: SnippetNginx, own: ownPage, status: 200,
			text: `if ($http_origin ~* (https?://.*\.example\.com)) { set $ok $http_origin; }
				if ($request_method = 'OPTIONS') { add_header Access-Control-Allow-Origin $ok; add_header Access-Control-Max-Age 600; return 200; }
				add_header Access-Control-Allow-Origin $ok;`,
			also:   map[string]string{"https://app.example.com.evil.example": "https://app.example.com.evil.example"},
			header: browser.Header{{Name: "Access-Control-Max-Age", Value: "600"}},
			note:   "without always",
		},
		{
			name: "nginx, a variable from elsewhere", kind: SnippetNginx, status: 204,
			text: "add_header Access-Control-Allow-Origin $allowed;", note: `"allowed"`,
		},
		{
			name: "nginx, variables of each other", kind: SnippetNginx, status: 204,
			text: "set $a $b; set $b $a; add_header Access-Control-Allow-Origin $a;",
		},
		{
			name: "Apache", kind: SnippetApache, own: ownPage, stranger: ownPage, status: 204,
			text: `Header always set Access-Control-Allow-Origin "https://app.example.com"`,
		},
		{
			name: "Apache, SetEnvIf", kind: SnippetApache, own: ownPage, status: 204,
			text: "SetEnvIf Origin \"^https://app\\.example\\.com$\" ALLOWED=$0\nHeader set Access-Control-Allow-Origin %{ALLOWED}e env=ALLOWED\nHeader merge Vary Origin",
		},
		{
			name: "Express, cors()", kind: SnippetExpress, own: "*", stranger: "*", status: 204,
			text:   "app.use(cors())",
			header: browser.Header{{Name: "Access-Control-Allow-Methods", Value: "GET,HEAD,PUT,PATCH,POST,DELETE"}, {Name: "Access-Control-Allow-Headers", Value: "content-type"}},
		},
		{
			name: "Express, everybody's origin", kind: SnippetExpress, own: ownPage, stranger: stranger, status: 200,
			text:   "app.use(cors({origin: true, credentials: true, optionsSuccessStatus: 200}))",
			header: browser.Header{{Name: "Vary", Value: "Origin"}, {Name: "Access-Control-Allow-Credentials", Value: "true"}},
		},
		{
			name: "Express, a list with a pattern", kind: SnippetExpress, own: ownPage, status: 204,
			text: "const origins = ['https://app.example.com', /example\\.org$/]; app.use(cors({ origin: origins, allowedHeaders: ['Content-Type'] }));",
			also: map[string]string{"https://evilexample.org": "https://evilexample.org"},
		},
		{
			name: "Express, a function", kind: SnippetExpress, status: 204,
			text: "res.set('X-A', '1'); app.use(cors({origin: (o, cb) => cb(null, true)}))", note: "code, which is not run",
		},
		{
			name: "Express, by hand", kind: SnippetExpress, own: ownPage, status: 204,
			text: `const allowed = ["https://app.example.com"];
				app.use((req, res, next) => { const origin = req.headers.origin;
				if (allowed.includes(origin)) { res.setHeader("Access-Control-Allow-Origin", origin); res.header({Vary: "Origin"}); } next() })`,
		},
		{
			name: "Express, by hand for everybody", kind: SnippetExpress, own: ownPage, stranger: stranger, status: 204,
			text: "res.header('Access-Control-Allow-Origin', req.headers['origin'])", note: "repeats the request's Origin",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := FromSnippet(c.text)
			if err != nil {
				t.Fatal(err)
			}
			if s.Kind != c.kind {
				t.Errorf("it is taken for %s; want %s", s.Kind, c.kind)
			}
			want := map[string]string{ownPage: c.own, stranger: c.stranger}
			maps.Copy(want, c.also)
			for origin, value := range want {
				a := s.Serve(browser.Message{Method: "GET", Header: browser.Header{{Name: "Origin", Value: origin}}})
				if got := a.Header.Value("Access-Control-Allow-Origin"); got != value || a.Status != 200 {
					t.Errorf("%s gets Access-Control-Allow-Origin %q, status %d; want %q, 200", origin, got, a.Status, value)
				}
			}
			preflight := s.Serve(browser.Message{Method: "OPTIONS", Preflight: true, Header: browser.Header{
				{Name: "Origin", Value: ownPage}, {Name: "Access-Control-Request-Method", Value: "POST"}, {Name: "Access-Control-Request-Headers", Value: "content-type"},
			}})
			if preflight.Status != c.status {
				t.Errorf("the preflight has status %d; want %d", preflight.Status, c.status)
			}
			for _, f := range c.header {
				if !slices.Contains(preflight.Header, f) {
					t.Errorf("the preflight lacks %v; it has %v", f, preflight.Header)
				}
			}
			if notes := strings.Join(s.Notes, " "); !strings.Contains(notes, c.note) {
				t.Errorf("the notes %q do not say %q", notes, c.note)
			}
		})
	}
}

func TestSnippetsAreRefused(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", "no header is set"},
		{"prose", "please audit me", "line 1"},
		{"too much", strings.Repeat("A: b\n", 20000), "bytes"},
		{"too many headers", strings.Repeat("A: b\n", 600), "more than the 500"},
		{"an open string", "add_header X \"a", "not closed"},
		{"deep blocks", strings.Repeat("a {", 100) + "add_header X y;", "nested"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := FromSnippet(c.text)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v; want it to say %q", err, c.want)
			}
		})
	}
}

// FuzzSnippet: whatever is pasted, it is read or refused, and what it answers is bounded
// and can be a header.
func FuzzSnippet(f *testing.F) {
	for _, seed := range []string{
		"Access-Control-Allow-Origin: *", "add_header A $http_origin always;", "map $http_origin $a { ~*x 1; default 0; } if ($a = 1) { add_header B $a; }",
		"Header set A \"%{Origin}i\" env=X", "app.use(cors({origin: [/a/, 'b']}))", "res.set({A: `b`})", "set $a $a$a; add_header B $a;",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := FromSnippet(text)
		if err != nil {
			return
		}
		a := s.Serve(browser.Message{Method: "GET", Header: browser.Header{{Name: "Origin", Value: stranger}}})
		if len(a.Header) > maxSettings || a.Status < 200 || a.Status > 599 {
			t.Errorf("%d fields, status %d", len(a.Header), a.Status)
		}
		for _, field := range a.Header {
			if len(field.Value) > maxSnippet || strings.ContainsAny(field.Value, "\r\n") {
				t.Errorf("%.20s: a value of %d bytes, or with a line break", field.Name, len(field.Value))
			}
		}
	})
}
