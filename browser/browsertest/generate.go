// Package browsertest makes cases for the browser model: random ones that cover its whole
// input, to be compared with what a real browser does.
//
// The hosts are of the reserved domain .test. Those that SpaceOf cannot tell apart are
// listed in Addresses.
package browsertest

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/moat-gateway/moat/browser"
)

// Root is where all paths of generated cases begin, so that whoever runs them can keep
// them apart.
const Root = "/case/"

// Addresses are the hosts that are not where their names would put them.
var Addresses = map[string]browser.AddressSpace{
	"192.168.0.7": browser.Local, "printer.local": browser.Local,
	"lan.test": browser.Local, "box.test": browser.Loopback, "box.app.test": browser.Loopback,
}

type generator struct {
	*rand.Rand
	c browser.Case
}

// Old makes a case whose cookies were set longer ago than two minutes: a browser has
// no clock to be turned, so that whoever plays it has to wait.
func Old(r *rand.Rand) browser.Case {
	for {
		c := Case(r)
		if len(c.Browser.Cookies) == 0 {
			continue
		}
		if api := c.Requests[0].API; api == browser.Fetch || api == browser.XHR {
			c.Requests = []browser.Request{{API: browser.Form, URL: c.Requests[0].URL, Method: "POST", Body: &browser.Body{Kind: "urlencoded", Text: "a=1"}}}
			c.Page.Ancestors, c.Page.Sandboxed, c.Page.COEP = nil, false, ""
			for i := range c.Answers { // documents, which are not downloaded
				a := &c.Answers[i].Answer
				a.Body = "<!doctype html>hello"
				a.Header = append(slices.DeleteFunc(a.Header, func(f browser.Field) bool { return f.Name == "Content-Type" }), browser.Field{Name: "Content-Type", Value: "text/html"})
			}
		}
		for i := range c.Browser.Cookies {
			c.Browser.Cookies[i].Age = 130
		}
		return c
	}
}

// Case makes a case. The same state of r makes the same case.
func Case(r *rand.Rand) browser.Case {
	g := &generator{Rand: r}
	g.c.Browser.LocalNetworkAllowed = g.chance(10)
	g.c.Browser.BlockThirdPartyCookies = g.chance(8)
	g.c.Browser.Addresses = Addresses
	g.page()
	g.request()
	g.cookies()
	return g.c
}

// oneOf picks from a list; what stands in it several times is picked more often.
func (g *generator) oneOf(list ...string) string { return list[g.IntN(len(list))] }

// chance is true once in n times.
func (g *generator) chance(n int) bool { return g.IntN(n) == 0 }

// blank takes "-" for the empty string, so that lists of words read well.
func blank(s string) string {
	if s == "-" {
		return ""
	}
	return s
}

func (g *generator) words(list string) string { return blank(g.oneOf(strings.Fields(list)...)) }

func (g *generator) page() {
	p := &g.c.Page
	p.URL = g.oneOf("http", "https", "https") + "://" + g.oneOf("app.test", "app.test", "app.test", "www.app.test", "localhost", "lan.test") + "/page"
	if strings.Contains(p.URL, "localhost") && g.chance(2) {
		p.URL = "http://localhost/page"
	}
	// A page of the public network frames none of a narrower one without permission.
	if public := !strings.Contains(p.URL, "localhost") && !strings.Contains(p.URL, "lan.test"); public && g.chance(3) {
		top := g.oneOf("https://app.test/top", "https://evil.test/top", "https://www.app.test/top", "http://evil.test/top")
		if strings.HasPrefix(p.URL, "http:") {
			top = "http:" + strings.SplitN(top, ":", 2)[1] // a secure page frames no insecure one
		}
		p.Ancestors = []string{top}
		p.Sandboxed = g.chance(3)
	}
	if g.chance(5) {
		p.ReferrerPolicy = g.words("no-referrer origin same-origin strict-origin unsafe-url origin-when-cross-origin no-referrer-when-downgrade")
	}
	if g.chance(10) {
		p.CSP = g.oneOf("connect-src 'self'", "connect-src https:", "connect-src https://api.test", "connect-src https://*.app.test 'self'",
			"img-src 'none'", "connect-src 'none'", "connect-src https://api.test/other/ https://evil.test", "form-action 'self'; frame-src https:", "default-src 'self' 'unsafe-inline'")
	}
	if g.chance(12) && strings.HasPrefix(p.URL, "https") && len(p.Ancestors) == 0 {
		p.COEP = g.oneOf("require-corp", "credentialless")
	}
}

func (g *generator) target() string {
	host := g.oneOf("self", "api.test", "api.test", "api.test", "api.test", "api.app.test", "api.app.test", "evil.test", "app.test", "localhost", "box.test", "lan.test", "192.168.0.7", "printer.local")
	scheme := g.oneOf("https", "https", "https", "http")
	if host == "self" {
		return g.selfOrigin()
	}
	port := ""
	if g.chance(12) {
		port = ":8443"
		if scheme == "http" {
			port = ":8080"
		}
	}
	return scheme + "://" + host + port
}

func (g *generator) selfOrigin() string { return strings.TrimSuffix(g.c.Page.URL, "/page") }

// origin is the page's as it is serialized.
func (g *generator) origin() string {
	if g.c.Page.Sandboxed {
		return "null"
	}
	return g.selfOrigin()
}

func (g *generator) request() {
	apis := strings.Fields("fetch fetch fetch fetch fetch fetch fetch fetch fetch fetch xhr xhr xhr img img script module stylesheet font eventsource beacon beacon ping websocket iframe form link")
	r := browser.Request{API: browser.API(g.oneOf(apis...))}
	if r.API == browser.Form || r.API == browser.Link {
		g.c.Page.Ancestors, g.c.Page.Sandboxed, g.c.Page.COEP = nil, false, ""
	}
	if g.c.Page.COEP != "" && r.API == browser.Frame {
		g.c.Page.COEP = ""
	}
	url := g.target() + Root + "a"
	if g.chance(20) {
		url += "?q=1"
	}
	r.URL = url
	switch r.API {
	case browser.Fetch:
		g.fetch(&r)
	case browser.XHR:
		r.Method = g.words("GET GET POST POST PUT PATCH DELETE patch HEAD")
		r.WithCredentials = g.chance(3)
		g.headers(&r)
		g.body(&r)
		r.UploadListener = g.chance(4)
	case browser.EventSource:
		r.WithCredentials = g.chance(2)
	case browser.Image, browser.Script, browser.Stylesheet, browser.ModuleScript:
		r.CrossOrigin = g.words("- - anonymous use-credentials")
		if g.chance(8) {
			r.ReferrerPolicy = g.words("no-referrer origin unsafe-url same-origin")
		}
	case browser.Beacon:
		g.someBody(&r)
	case browser.Form:
		r.Method = g.words("GET POST POST")
		r.UserActivated = g.chance(2)
		if r.Method == "POST" {
			r.Body = &browser.Body{Kind: g.words("urlencoded form-data plain"), Text: "a=1"}
		}
	case browser.Link:
		r.UserActivated = g.chance(2)
	case browser.WebSocket:
		r.URL = "ws" + strings.TrimPrefix(r.URL, "http")
	case browser.Ping, browser.Frame, browser.Font:
	}
	g.c.Requests = []browser.Request{r}
	g.answers(r)
	if r.API == browser.Image && r.CrossOrigin == "" && g.chance(4) {
		// What the image left in the cache may not do for fetch.
		g.c.Requests = append(g.c.Requests, browser.Request{API: browser.Fetch, URL: r.URL, Credentials: g.words("- include omit")})
		last := &g.c.Answers[len(g.c.Answers)-1].Answer
		last.Header = append(last.Header, browser.Field{Name: "Cache-Control", Value: "max-age=600"}, browser.Field{Name: "Vary", Value: g.oneOf("Origin", "Origin", "Accept-Language")})
	}
	if (r.API == browser.Fetch || r.API == browser.XHR) && g.chance(6) {
		again := r
		switch {
		case g.chance(3) && r.API == browser.Fetch && r.Mode == "":
			again.Credentials = g.words("include omit")
		case g.chance(3):
			again.Method = g.words("PUT DELETE GET")
			if again.Method == "GET" {
				again.Body = nil
			}
		}
		g.c.Requests = append(g.c.Requests, again)
	}
}

func (g *generator) fetch(r *browser.Request) {
	r.Method = g.words("- - GET POST POST PUT DELETE PATCH patch HEAD OPTIONS put")
	r.Mode = g.words("- - - - - - cors no-cors same-origin")
	r.Credentials = g.words("- - include include omit same-origin")
	r.Redirect = g.words("- - - - - - - manual error")
	if g.chance(6) {
		r.ReferrerPolicy = g.words("no-referrer origin same-origin strict-origin unsafe-url")
	}
	if g.chance(20) {
		r.Cache = g.words("no-store reload no-cache force-cache")
	}
	g.headers(r)
	g.body(r)
}

func (g *generator) headers(r *browser.Request) {
	for range g.IntN(3) {
		f := [][2]string{
			{"Content-Type", "application/json"},
			{"Content-Type", "text/plain"},
			{"Content-Type", "TEXT/PLAIN; charset=utf-8"},
			{"content-type", "text/plain; a=\"b\""},
			{"Content-Type", "application/x-www-form-urlencoded"},
			{"Authorization", "Bearer x"},
			{"X-Custom", "1"},
			{"x-another", "2"},
			{"Accept", "application/json"},
			{"Accept", "text/(x)"},
			{"Accept-Language", "de, en;q=0.5"},
			{"Accept-Language", "de_AT"},
			{"Content-Language", "de"},
			{"Range", "bytes=0-"},
			{"Range", "bytes=0-10"},
			{"Range", "bytes=-5"},
			{"Accept", strings.Repeat("a", 120+g.IntN(12))},
			{"Cookie", "forged=1"},
			{"Origin", "https://forged.test"},
			{"Sec-Fetch-Site", "same-origin"},
			{"X-HTTP-Method-Override", "TRACE"},
			{"X-HTTP-Method-Override", "PUT"},
			{"DPR", "2"},
			{"Save-Data", "on"},
			{"User-Agent", "custom"},
			{"If-None-Match", "\"x\""},
			{"Cache-Control", "no-cache"},
			{"Pragma", "no-cache"},
			{"X-Requested-With", "XMLHttpRequest"},
			{"Priority", "u=1"},
			{"Upgrade-Insecure-Requests", "1"},
		}[g.IntN(31)]
		r.Header = append(r.Header, browser.Field{Name: f[0], Value: f[1]})
	}
	if g.chance(60) {
		for i := range 9 {
			name := []string{"Accept", "Accept-Language", "Content-Language"}[i%3]
			r.Header = append(r.Header, browser.Field{Name: name, Value: strings.Repeat("a", 110+g.IntN(10))})
		}
	}
}

func (g *generator) body(r *browser.Request) {
	switch strings.ToUpper(r.Method) {
	case "", "GET", "HEAD":
		return
	}
	g.someBody(r)
}

func (g *generator) someBody(r *browser.Request) {
	b := &browser.Body{Kind: g.words("text text urlencoded form-data blob blob buffer"), Text: "a=1"}
	if r.API == browser.Fetch && g.chance(12) {
		b.Kind = "stream"
	}
	if b.Kind == "blob" {
		b.Type = g.words("- text/plain application/json application/JSON image/png")
	}
	if r.API == browser.Beacon && g.chance(6) {
		return // without data
	}
	r.Body = b
}

// answers scripts the servers: the target, and the hops of a redirect.
func (g *generator) answers(r browser.Request) {
	at := r.URL
	if r.API == browser.Form && r.Method == "GET" {
		at, _, _ = strings.Cut(at, "?")
		at += "?"
	}
	for hop := range 4 {
		last := hop == 3 || !g.chance(4) || r.API == browser.WebSocket
		g.preflightRule(r, at)
		a := g.actual(r)
		next := ""
		if !last {
			next = g.target() + Root + fmt.Sprintf("hop%d", hop)
			switch {
			case g.chance(25):
				next = strings.Replace(next, "://", "://user:secret@", 1)
			case g.chance(40):
				next = "data:text/plain,x"
			}
			a.Status = []int{301, 302, 303, 307, 308}[g.IntN(5)]
			a.Header = append(a.Header, browser.Field{Name: "Location", Value: next})
			if g.chance(12) {
				a.Header = append(a.Header, browser.Field{Name: "Referrer-Policy", Value: g.words("no-referrer origin unsafe-url")})
			}
		}
		g.c.Answers = append(g.c.Answers, browser.Rule{URL: at, On: "actual", Answer: a})
		if last || strings.HasPrefix(next, "data:") {
			return
		}
		at = strings.Replace(next, "user:secret@", "", 1)
	}
}

// allow writes the fields that grant or, now and then, nearly grant.
func (g *generator) allow(h *browser.Header, r browser.Request) {
	add := func(name, value string) { *h = append(*h, browser.Field{Name: name, Value: value}) }
	include := r.Credentials == "include" || r.WithCredentials || r.CrossOrigin == "use-credentials" || r.API == browser.Beacon
	origin := g.origin()
	switch {
	case g.chance(4):
		switch g.IntN(11) {
		case 0, 1: // missing
		case 2:
			add("Access-Control-Allow-Origin", origin+"/")
		case 3:
			add("Access-Control-Allow-Origin", "https://other.test")
		case 4:
			add("Access-Control-Allow-Origin", origin)
			add("Access-Control-Allow-Origin", origin)
		case 5:
			add("Access-Control-Allow-Origin", origin+", https://other.test")
		case 6:
			add("Access-Control-Allow-Origin", "")
		case 7:
			add("Access-Control-Allow-Origin", strings.ToUpper(origin))
		case 8:
			add("Access-Control-Allow-Origin", "app.test")
		case 9:
			add("Access-Control-Allow-Origin", "null")
		case 10:
			add("Access-Control-Allow-Origin", origin+" https://other.test")
		}
	case g.chance(3):
		add("Access-Control-Allow-Origin", "*")
	case g.chance(8):
		add("Access-Control-Allow-Origin", "null")
	default:
		add("Access-Control-Allow-Origin", origin)
	}
	if include != g.chance(6) {
		add("Access-Control-Allow-Credentials", g.oneOf("true", "true", "true", "true", "true", "true", "True", "false", "1", ""))
	}
}

func (g *generator) preflightRule(r browser.Request, at string) {
	a := browser.Answer{Status: 204}
	g.allow(&a.Header, r)
	add := func(name, value string) { a.Header = append(a.Header, browser.Field{Name: name, Value: value}) }
	if !g.chance(6) {
		methods := g.oneOf("GET, POST, PUT, PATCH, DELETE, OPTIONS", "GET,POST,PUT,PATCH,DELETE", "put, patch, delete", "*", strings.ToUpper(r.Method), "PUT", ", PUT ,,DELETE")
		if g.chance(30) {
			methods = "PUT; DELETE"
		}
		add("Access-Control-Allow-Methods", methods)
	}
	if !g.chance(6) {
		headers := g.oneOf("content-type, authorization, x-custom, x-another, accept, range, accept-language, content-language, if-none-match, cache-control, pragma, x-requested-with, x-http-method-override, priority, user-agent, upgrade-insecure-requests, dpr, save-data",
			"Content-Type, Authorization, X-Custom, X-Another, Accept, Range, Accept-Language, Cache-Control, Pragma, X-Requested-With, X-HTTP-Method-Override, Priority, Upgrade-Insecure-Requests, If-None-Match",
			"*", "*, authorization", "content-type", "x-custom")
		if g.chance(30) {
			headers = "content-type; x-custom"
		}
		add("Access-Control-Allow-Headers", headers)
	}
	if g.chance(3) {
		add("Access-Control-Max-Age", g.oneOf("600", "0", "-1", "x", "86400", " 10", "5.5"))
	}
	switch {
	case g.chance(15):
		a.Status = []int{401, 404, 405, 500, 200, 202}[g.IntN(6)]
	case g.chance(25):
		a.Status = []int{301, 307, 302}[g.IntN(3)]
		add("Location", at+"/moved")
	}
	g.c.Answers = append(g.c.Answers, browser.Rule{URL: at, On: "preflight", Answer: a})
}

// The smallest image, one pixel of BMP, which is all ASCII.
const bitmap = "BM:\x00\x00\x00\x00\x00\x00\x006\x00\x00\x00(\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01\x00\x18\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func (g *generator) actual(r browser.Request) browser.Answer {
	a := browser.Answer{Status: 200}
	g.allow(&a.Header, r)
	add := func(name, value string) { a.Header = append(a.Header, browser.Field{Name: name, Value: value}) }
	kind, body := "application/json", `{"a":1}`
	switch r.API {
	case browser.Image:
		kind, body = "image/bmp", bitmap
	case browser.Script, browser.ModuleScript:
		kind, body = "text/javascript", "0"
	case browser.Stylesheet:
		kind, body = "text/css", "a{}"
	case browser.EventSource:
		kind, body = "text/event-stream", "data: 1\n\n"
	case browser.Form, browser.Link, browser.Frame:
		kind, body = "text/html", "<!doctype html>hello"
	case browser.WebSocket:
		a.Status = 101
	case browser.Fetch, browser.XHR, browser.Font, browser.Beacon, browser.Ping:
	}
	if g.chance(6) {
		kind, body = g.oneOf("application/json", "text/html", "text/plain", "text/css", "image/bmp", "image/svg+xml", "text/csv", "application/pdf", "text/javascript", "application/octet-stream"), g.oneOf(body, `{"a":1}`, "<!doctype html><p>x", "0")
		if kind == "image/svg+xml" {
			body = `<svg xmlns="http://www.w3.org/2000/svg"></svg>`
		}
	}
	if (r.API == browser.Form || r.API == browser.Link || r.API == browser.Frame) && kind != "text/html" {
		kind = g.oneOf("text/html", "text/plain", "application/json", "text/css", "text/javascript") // not to be downloaded
	}
	if r.API == browser.WebSocket {
		if g.chance(4) {
			a.Status = 403
		}
		a.Header = nil
		return a
	}
	if !g.chance(30) {
		add("Content-Type", kind)
	}
	a.Body = body
	if g.chance(6) {
		add("X-Content-Type-Options", "nosniff")
	}
	if g.chance(6) {
		add("Cross-Origin-Resource-Policy", g.words("same-origin same-site cross-origin nonsense"))
	}
	if r.API == browser.Frame && g.chance(3) {
		add("X-Frame-Options", g.words("DENY SAMEORIGIN"))
	}
	if g.chance(6) {
		a.Status = []int{201, 400, 401, 404, 500, 503}[g.IntN(6)]
	}
	if g.chance(4) {
		add("X-Total", "3")
		add("Access-Control-Expose-Headers", g.oneOf("X-Total", "*", "x-total, etag", "set-cookie, x-total"))
	}
	if g.chance(8) {
		add("Set-Cookie", "late="+fmt.Sprint(g.IntN(9))+"; Path="+Root+g.oneOf("", "", "; SameSite=Lax", "; Secure; SameSite=None", "; Secure; SameSite=None"))
	}
	if g.chance(12) {
		add("Cache-Control", g.oneOf("max-age=600", "no-store", "max-age=600, private"))
		add("Vary", g.oneOf("Origin", "Accept", "*"))
	}
	return a
}

func (g *generator) cookies() {
	if g.chance(3) {
		return
	}
	var hosts []string
	for _, r := range g.c.Answers {
		if origin, _, ok := strings.Cut(strings.Replace(r.URL, "ws", "http", 1), Root); ok && r.On == "actual" {
			hosts = append(hosts, origin)
		}
	}
	for i := range 1 + g.IntN(3) {
		origin := hosts[g.IntN(len(hosts))]
		line := fmt.Sprintf("c%d=%d", i, g.IntN(10))
		secure := strings.HasPrefix(origin, "https")
		switch {
		case secure && g.chance(12):
			line = fmt.Sprintf("__Host-c%d%06d=1; Secure; Path=/", i, g.IntN(1000000))
		default:
			line += "; Path=" + Root + g.oneOf("", "", "", "a")
			host, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(origin, "http://"), "https://"), ":")
			if strings.HasSuffix(host, "app.test") && g.chance(2) {
				line += "; Domain=app.test"
			}
			if secure && g.chance(2) {
				line += "; Secure"
			}
		}
		switch g.IntN(6) {
		case 0:
			line += "; SameSite=Lax"
		case 1:
			line += "; SameSite=Strict"
		case 2, 3:
			if secure {
				line += "; SameSite=None; Secure"
			}
		}
		s := browser.Seed{URL: origin + Root + "login", SetCookie: line}
		if secure && strings.Contains(line, "SameSite=None") && g.chance(4) {
			s.SetCookie += "; Partitioned"
			s.Top = g.oneOf("", g.c.Page.URL, "https://evil.test/")
			if strings.HasPrefix(s.Top, "http:") {
				s.Top = ""
			}
		}
		g.c.Browser.Cookies = append(g.c.Browser.Cookies, s)
	}
	// They are set server by server, which is the order of their ages.
	slices.SortStableFunc(g.c.Browser.Cookies, func(a, b browser.Seed) int {
		return cmp.Or(strings.Compare(a.Top, b.Top), strings.Compare(a.URL, b.URL))
	})
}
