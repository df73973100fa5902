package cookie

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/web"
)

// SameSite says with which requests of other sites' pages a cookie travels.
type SameSite uint8

const (
	// AtLeastLax makes Lax of None, and of a cookie that does not say.
	AtLeastLax SameSite = iota
	// Strict makes Strict of all.
	Strict
	// None leaves None as it is, and makes Lax of a cookie that does not say.
	None
	// Keep leaves all as they are.
	Keep
)

const (
	// MaxBytes is how long a name and its value are together at most: browsers ignore longer
	// ones (RFC 6265bis section 5.6).
	MaxBytes = 4096
	// DefaultMaxCookies is how many cookies an answer may set: as many as every browser keeps
	// for a domain (RFC 6265bis section 6.1).
	DefaultMaxCookies = 50
)

// Policy says what cookies are like. Names stand as the upstream spells them; a "*" at the
// end stands for any rest.
type Policy struct {
	SameSite SameSite
	// AllowInsecure does not add Secure where the public origin is https.
	AllowInsecure bool
	// HTTPOnly are the names of cookies that script must not read. None means those that look
	// like a session's: see the guard's page in docs.
	HTTPOnly []string
	// Script are the names of cookies that script has to read, whatever HTTPOnly says; "*" means all.
	Script []string
	// HostPrefix are the names of cookies that the browser keeps as __Host-NAME, which no other
	// host can set. They lose Domain, and their Path becomes "/".
	HostPrefix []string
	// SecurePrefix are the names of those that it keeps as __Secure-NAME, which nobody can set
	// over plain http.
	SecurePrefix []string
	// Partitioned are the names of cookies that a browser keeps apart by the site that the user
	// sees.
	Partitioned []string
	// HostOnly drops Domain from all cookies, so that siblings do not get them.
	HostOnly bool
	// MaxBytes of a name and its value; 0 means the constant of that name, which is the most.
	MaxBytes int
	// MaxCookies that an answer may set; 0 means DefaultMaxCookies.
	MaxCookies int
}

// Guard is a compiled Policy: immutable, and safe for concurrent use.
type Guard struct {
	sameSite                            SameSite
	allowInsecure, hostOnly, sessions   bool
	httpOnly, script, host, secureNames names
	partitioned                         names
	maxBytes, maxCookies                int
}

// New compiles a Policy.
func New(p Policy) (*Guard, error) {
	var errs []error
	compile := func(place string, list []string) names {
		n, err := newNames(list)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", place, err))
		}
		return n
	}
	g := &Guard{
		sameSite: p.SameSite, allowInsecure: p.AllowInsecure, hostOnly: p.HostOnly, sessions: len(p.HTTPOnly) == 0,
		httpOnly: compile("http_only", p.HTTPOnly), script: compile("script", p.Script), partitioned: compile("partitioned", p.Partitioned),
		host: compile("host_prefix", p.HostPrefix), secureNames: compile("secure_prefix", p.SecurePrefix),
		maxBytes: cmp.Or(p.MaxBytes, MaxBytes), maxCookies: cmp.Or(p.MaxCookies, DefaultMaxCookies),
	}
	for _, name := range slices.Concat(p.HostPrefix, p.SecurePrefix) {
		if strings.HasPrefix(name, "__") {
			errs = append(errs, fmt.Errorf("prefix: %q has one already; write the name that the upstream sets", name))
		}
	}
	if p.SameSite > Keep {
		errs = append(errs, fmt.Errorf("same_site: %d is no such value", p.SameSite))
	}
	if g.maxBytes < 1 || g.maxBytes > MaxBytes {
		errs = append(errs, fmt.Errorf("max_bytes %d: it is between 1 and %d, which is the most that browsers take", g.maxBytes, MaxBytes))
	}
	if g.maxCookies < 1 {
		errs = append(errs, fmt.Errorf("max_cookies %d: it is at least 1", g.maxCookies))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return g, nil
}

// names are patterns of cookies' names.
type names []pattern

type pattern struct {
	text, folded string
	prefix       bool
}

func newNames(list []string) (names, error) {
	var all names
	for _, s := range list {
		text, prefix := strings.CutSuffix(s, "*")
		if s == "" || text != "" && !httpguts.ValidHeaderFieldName(text) {
			return nil, fmt.Errorf("%q is no name of a cookie; write NAME, or NAME* for all that begin so", s)
		}
		all = append(all, pattern{text, web.FoldName(text), prefix})
	}
	return all, nil
}

func (n names) match(name string) bool {
	for i := range n {
		if p := &n[i]; name == p.text || p.prefix && strings.HasPrefix(name, p.text) {
			return true
		}
	}
	return false
}

// matchFolded is match for a folded name: see web.FoldName.
func (n names) matchFolded(folded []byte) bool {
	for i := range n {
		p := &n[i]
		if len(folded) >= len(p.folded) && string(folded[:len(p.folded)]) == p.folded && (p.prefix || len(folded) == len(p.folded)) {
			return true
		}
	}
	return false
}

// covers looks for the name as it is, and without its prefix.
func (n names) covers(name, bare string) bool { return n.match(name) || n.match(bare) }

// Response hardens the cookies that h sets, line by line, and tells report of each that
// was changed or dropped. secure says that the public origin is https. In another mode than
// guard.Enforce it tells the same and changes nothing.
func (g *Guard) Response(h http.Header, secure bool, mode guard.Mode, report func(guard.Decision)) {
	lines := h["Set-Cookie"]
	if len(lines) == 0 {
		return
	}
	kept := 0
	for _, line := range lines {
		hardened, d := g.harden(line, secure)
		if hardened != "" && kept == g.maxCookies {
			hardened, d = "", dropped(nameOf(line), "at most "+strconv.Itoa(g.maxCookies)+" cookies")
		}
		if d.Outcome != guard.Allow {
			report(d)
		}
		if hardened == "" {
			continue
		}
		if mode == guard.Enforce {
			lines[kept] = hardened
		}
		kept++
	}
	if mode != guard.Enforce {
		return
	}
	if h["Set-Cookie"] = lines[:kept]; kept == 0 {
		delete(h, "Set-Cookie")
	}
}

func dropped(name, want string) guard.Decision {
	return guard.Decision{Outcome: guard.Amend, Reason: guard.CookieDropped, Evidence: guard.Evidence{Where: "Set-Cookie", Got: name, Want: want}}
}
