package bench

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Row is one kind of request, the same for all contestants.
type Row struct {
	Name string
	// Adversarial rows are requests made to be expensive. They should cost the same
	// whatever their size and however long the list of origins is.
	Adversarial bool
	// Allowed says that the page may read the answer, or the preflight passes; for the
	// cross-site guard, that the handler runs.
	Allowed bool
	// Groups says who runs the row.
	Groups []Group

	origins func(n int) []string
	methods []string
	request func(origins []string) *http.Request
}

// Group is moat's guard and those that do the same.
type Group struct {
	Ours   Contestant
	Theirs []Contestant
}

// CORSGroup and CrossSiteGroup are all contestants.
var (
	CORSGroup      = Group{Moat, []Contestant{Jub0bs, RS}}
	CrossSiteGroup = Group{CrossSite, []Contestant{Std}}
)

// Counts are the lengths of the list of origins.
var Counts = []int{1, 100, 10_000}

// api is what browsers call the server.
const api = "https://api.example.net"

// kib64 is longer than any header that net/http's users let pass by accident.
const kib64 = 64 << 10

// Rows returns all rows.
func Rows() []Row {
	both := []Group{CORSGroup, CrossSiteGroup}
	onlyCORS := []Group{CORSGroup}
	onlyCrossSite := []Group{CrossSiteGroup}
	stranger := "https://stranger.example.org"
	// The most labels that a host can have: 122 before a name that others end in too.
	deep := "https://" + strings.Repeat("a.", 121) + "example.com"
	return []Row{
		{Name: "actual ok", Allowed: true, Groups: both, request: actual(middle)},
		{Name: "actual denied", Groups: both, request: actual(always(stranger))},
		{Name: "preflight ok", Allowed: true, Groups: onlyCORS, request: preflight(middle, "PUT", "authorization,content-type")},
		{Name: "preflight denied", Groups: onlyCORS, request: preflight(always(stranger), "PUT", "authorization,content-type")},
		{Name: "preflight denied, header", Groups: onlyCORS, request: preflight(middle, "PUT", "authorization,x-other")},

		{Name: "Origin of 64 KiB", Adversarial: true, Groups: both, request: actual(always("https://" + strings.Repeat("a", kib64)))},
		{Name: "Origin of 122 labels", Adversarial: true, Groups: onlyCORS, origins: tenants, request: actual(always(deep))},
		{Name: "Origin of 122 labels, bases of all lengths", Adversarial: true, Groups: onlyCORS, origins: customers, request: actual(always(deep))},
		{Name: "Origin of 120 labels below a base", Adversarial: true, Allowed: true, Groups: onlyCORS, origins: tenants, request: actual(below)},
		{Name: "ACRH of 1 KiB commas", Adversarial: true, Groups: onlyCORS, request: preflight(middle, "PUT", strings.Repeat(",", 1024))},
		{Name: "ACRH of 64 KiB, one name repeated", Adversarial: true, Groups: onlyCORS, request: preflight(middle, "PUT", strings.Repeat("authorization,", kib64/14))},
		{Name: "ACRH of 1000 lines", Adversarial: true, Groups: onlyCORS, request: preflight(middle, "PUT", repeat("authorization", 1000)...)},
		{Name: "ACRH of 1000 empty lines", Adversarial: true, Groups: onlyCORS, request: preflight(middle, "PUT", make([]string, 1000)...)},
		{Name: "ACRH of 64 KiB blanks", Adversarial: true, Groups: onlyCORS, request: preflight(middle, "PUT", strings.Repeat(" ", kib64))},
		{Name: "ACRM of 64 KiB", Adversarial: true, Groups: onlyCORS, request: preflight(middle, strings.Repeat("A", kib64))},
		{
			Name: "ACRM of 64 KiB, ten methods", Adversarial: true, Groups: onlyCORS, request: preflight(middle, strings.Repeat("A", kib64)),
			methods: []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "PROPFIND", "REPORT", "MOVE", "COPY"},
		},
		{Name: "Upgrade of 64 KiB commas", Adversarial: true, Groups: onlyCrossSite, request: func(origins []string) *http.Request {
			r := actual(always(stranger))(origins)
			r.Header["Upgrade"] = []string{strings.Repeat(",", kib64)}
			return r
		}},
	}
}

func always(origin string) func([]string) string { return func([]string) string { return origin } }

// middle is the origin that a search from one end finds after half of the list.
func middle(origins []string) string { return origins[len(origins)/2] }

// below is a host of 253 bytes below the base of the pattern in the middle.
func below(origins []string) string {
	base := strings.TrimPrefix(middle(origins), "https://*.")
	labels := (253 - len(base)) / 2
	return "https://" + strings.Repeat("a.", labels) + base
}

func repeat(s string, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = s
	}
	return list
}

// apps are origins without wildcards.
func apps(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = "https://app" + strconv.Itoa(i) + ".example.com"
	}
	return list
}

// tenants are the subdomains of one domain, below each of which the pages of one
// tenant are.
func tenants(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = "https://*.tenant" + strconv.Itoa(i) + ".example.com"
	}
	return list
}

// customers are domains of everybody's own choice, and so of all lengths.
func customers(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = "https://*." + strings.Repeat("c", i%56) + strconv.Itoa(i) + ".com"
	}
	return list
}

func actual(origin func([]string) string) func([]string) *http.Request {
	return func(origins []string) *http.Request {
		r := request(http.MethodPost, origin(origins))
		r.Header["Content-Type"] = []string{"application/json"}
		return r
	}
}

func preflight(origin func([]string) string, method string, headers ...string) func([]string) *http.Request {
	return func(origins []string) *http.Request {
		r := request(http.MethodOptions, origin(origins))
		r.Header["Access-Control-Request-Method"] = []string{method}
		if headers != nil {
			r.Header["Access-Control-Request-Headers"] = headers
		}
		return r
	}
}

// request is what a browser sends for a page of another site.
func request(method, origin string) *http.Request {
	r, err := http.NewRequest(method, api+"/v1/items", http.NoBody) //nolint:noctx // it goes nowhere.
	if err != nil {
		panic(err) // the URL is a constant
	}
	r.Header = http.Header{
		"User-Agent":      {"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36"},
		"Accept":          {"*/*"},
		"Accept-Encoding": {"gzip, deflate, br, zstd"},
		"Accept-Language": {"en-GB,en;q=0.9"},
		"Origin":          {origin},
		"Sec-Fetch-Dest":  {"empty"},
		"Sec-Fetch-Mode":  {"cors"},
		"Sec-Fetch-Site":  {"cross-site"},
	}
	return r
}

// Policy is what the row's contestants are configured with, for n origins.
func (row Row) Policy(n int) Policy {
	p := Policy{
		Public: []string{api}, Credentials: true, MaxAge: 10 * time.Minute,
		Methods: row.methods, RequestHeaders: []string{"Authorization", "Content-Type"},
	}
	if row.origins == nil {
		p.Origins = apps(n)
	} else {
		p.Origins = row.origins(n)
	}
	if p.Methods == nil {
		p.Methods = []string{"GET", "POST", "PUT", "DELETE"}
	}
	return p
}

// Exchange is a request that a contestant can be given again and again.
type Exchange struct {
	Request *http.Request
	// Header is that of the last answer.
	Header http.Header
	// Status is that of the last answer.
	Status int
	// Ran says that the last request reached the handler.
	Ran bool

	handler http.Handler
}

// Exchange configures the contestant c for the row with n origins, and makes sure that
// it answers as the row says: what does something else is not worth measuring.
func (row Row) Exchange(c Contestant, n int) (*Exchange, error) {
	p := row.Policy(n)
	wrap, err := c.New(p)
	if err != nil {
		return nil, fmt.Errorf("%s: %s with %d origins: %w", c.Name, row.Name, n, err)
	}
	x := NewExchange(wrap, row.request(p.Origins))
	x.Do()
	// A refusal may be readable for a page that is listed: its status is what refuses.
	allowed := x.Header["Access-Control-Allow-Origin"] != nil && x.Status/100 == 2
	if c.Name == CrossSite.Name || c.Name == Std.Name {
		allowed = x.Ran
	}
	if allowed != row.Allowed {
		return nil, fmt.Errorf("%s: %s with %d origins: allowed is %v, want %v", c.Name, row.Name, n, allowed, row.Allowed)
	}
	return x, nil
}

// NewExchange returns an Exchange of the request with a handler inside the middleware
// that does nothing.
func NewExchange(wrap Middleware, r *http.Request) *Exchange {
	x := &Exchange{Request: r, Header: make(http.Header)}
	x.handler = wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { x.Ran = true }))
	return x
}

// Do has the request answered anew. By itself it does not allocate.
func (x *Exchange) Do() {
	clear(x.Header)
	x.Status, x.Ran = http.StatusOK, false
	x.handler.ServeHTTP(responseWriter{x}, x.Request)
}

// Benchmark measures the contestant c with n origins.
func (row Row) Benchmark(b *testing.B, c Contestant, n int) {
	b.Helper()
	x, err := row.Exchange(c, n)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		x.Do()
	}
}

// responseWriter keeps an answer's head and forgets its body.
type responseWriter struct{ x *Exchange }

func (w responseWriter) Header() http.Header         { return w.x.Header }
func (w responseWriter) WriteHeader(status int)      { w.x.Status = status }
func (w responseWriter) Write(b []byte) (int, error) { return len(b), nil }
