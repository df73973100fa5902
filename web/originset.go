package web

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// OriginSet is a compiled list of origins and patterns. Looking one up costs the
// same for ten entries as for ten thousand, and is bounded for any input. The zero
// OriginSet is empty. It is immutable, so safe for concurrent use.
type OriginSet struct {
	any       bool
	exact     map[string]struct{}
	lengths   [MaxOrigin/64 + 1]uint64 // a bit for each length in exact: most strangers are told by it
	ports     map[string]struct{}      // scheme://host of the patterns with any port
	suffixes  labelNode                // of the patterns with subdomains, by label from the right
	maxOrigin int                      // longest origin that can be in the set
	patterns  []string
}

// labelNode is one label of the patterns' hosts: below it are the labels to its left.
// A lookup goes no deeper than the patterns do, whatever the number of labels that a
// stranger sends.
type labelNode struct {
	left map[string]*labelNode
	ends []patternEnd // of the patterns whose base ends here
}

// patternEnd is what a pattern has beyond its host; anyPort stands for ":*".
type patternEnd struct {
	scheme  string
	port    uint16
	anyPort bool
}

func (n *labelNode) add(host string, e patternEnd) {
	for host != "" {
		i := strings.LastIndexByte(host, '.')
		label := host[i+1:]
		host = host[:max(i, 0)]
		if n.left == nil {
			n.left = make(map[string]*labelNode)
		}
		next := n.left[label]
		if next == nil {
			next = new(labelNode)
			n.left[label] = next
		}
		n = next
	}
	n.ends = append(n.ends, e)
}

// covers reports whether host is below a base of the scheme and port.
func (n *labelNode) covers(scheme, host string, port uint16) bool {
	for {
		// A label is no longer than 63 bytes, and a stranger decides where it begins.
		i := strings.LastIndexByte(host[max(0, len(host)-64):], '.')
		if i < 0 {
			return false // no label is left of a base
		}
		i += max(0, len(host)-64)
		n = n.left[host[i+1:]]
		if n == nil {
			return false
		}
		for _, e := range n.ends {
			if (e.anyPort || e.port == port) && e.scheme == scheme {
				return true
			}
		}
		host = host[:i]
	}
}

// PatternError says why an entry of an origin list was refused.
type PatternError struct {
	Index         int
	Value, Reason string
	Suggest       string
	// PublicSuffix is set when the pattern would cover domains of different owners,
	// the one fault that DangerouslyAllowPublicSuffix overrules.
	PublicSuffix bool
}

func (e *PatternError) Error() string {
	if e.Suggest != "" {
		return fmt.Sprintf("origin %q: %s; write %s", e.Value, e.Reason, e.Suggest)
	}
	return fmt.Sprintf("origin %q: %s", e.Value, e.Reason)
}

// OriginSetOptions widens what NewOriginSet accepts.
type OriginSetOptions struct {
	// DangerouslyAllowPublicSuffix accepts patterns such as https://*.github.io,
	// which cover the pages of anybody who registers there.
	DangerouslyAllowPublicSuffix bool
	// DangerouslyAllowInsecureOrigins accepts http: origins that are not on this
	// machine. Whoever is on the path can speak for them.
	DangerouslyAllowInsecureOrigins bool
	// DangerouslyAllowAnyLocalhostPort accepts http://localhost:* (and 127.0.0.1, [::1]).
	DangerouslyAllowAnyLocalhostPort bool
}

// NewOriginSet compiles a list whose entries are
//
//	https://app.example.com      one origin
//	https://*.example.com        every subdomain, at any depth, but not example.com itself
//	https://app.example.com:*    every port, the default one included
//	*                            every origin; must stand alone
//
// It returns all faults at once.
func NewOriginSet(list []string, opt OriginSetOptions) (*OriginSet, []*PatternError) {
	s := &OriginSet{
		exact: make(map[string]struct{}),
		ports: make(map[string]struct{}),
	}
	var faults []*PatternError
	for i, entry := range list {
		if e := s.add(entry, opt); e != nil {
			e.Index = i
			faults = append(faults, e)
		}
	}
	if s.any && len(list) > 1 {
		faults = append(faults, &PatternError{Index: slices.Index(list, "*"), Value: "*", Reason: "covers every other entry of the list; let it stand alone or remove it"})
	}
	return s, faults
}

func (s *OriginSet) add(entry string, opt OriginSetOptions) *PatternError {
	if entry == "*" {
		s.any = true
		return nil
	}
	if !strings.Contains(entry, "*") {
		o, err := ParseOrigin(entry)
		if err != nil {
			return patternError(entry, err)
		}
		if e := insecure(entry, o, opt); e != nil {
			return e
		}
		s.exact[entry] = struct{}{}
		s.lengths[len(entry)/64] |= 1 << (len(entry) % 64)
		s.maxOrigin = max(s.maxOrigin, len(entry))
		return nil
	}
	return s.addPattern(entry, opt)
}

func patternError(entry string, err error) *PatternError {
	e := &PatternError{Value: entry, Reason: err.Error()}
	if oe, ok := err.(*OriginError); ok { //nolint:errorlint // ParseOrigin returns it unwrapped.
		e.Value, e.Reason, e.Suggest = oe.Value, oe.Reason, oe.Suggest
	}
	return e
}

func insecure(entry string, o Origin, opt OriginSetOptions) *PatternError {
	if o.scheme != "http" || o.Loopback() || opt.DangerouslyAllowInsecureOrigins {
		return nil
	}
	return &PatternError{Value: entry, Reason: "whoever is on the network path can speak for an http: origin", Suggest: strings.Replace(entry, "http://", "https://", 1)}
}

func (s *OriginSet) addPattern(entry string, opt OriginSetOptions) *PatternError {
	rest, anyPort := strings.CutSuffix(entry, ":*")
	scheme, host, _ := strings.Cut(rest, "://")
	base, sub := strings.CutPrefix(host, "*.")
	if strings.Contains(base, "*") || strings.Contains(scheme, "*") {
		e := &PatternError{Value: entry, Reason: "a wildcard stands only for whole labels in front (https://*.example.com) or for the port (https://example.com:*)"}
		if i := strings.LastIndexByte(base, '*'); i >= 0 && strings.Contains(strings.TrimLeft(base[i+1:], "."), ".") {
			e.Suggest = scheme + "://*." + strings.TrimLeft(base[i+1:], ".-")
		}
		return e
	}
	o, err := ParseOrigin(scheme + "://" + base)
	if err != nil {
		e := patternError(entry, err)
		if !strings.Contains(entry, "@") { // a password may stand before it
			e.Value = entry
		}
		if e.Suggest != "" && sub {
			e.Suggest = strings.Replace(e.Suggest, "://", "://*.", 1)
		}
		return e
	}
	if anyPort && o.port != 0 {
		return &PatternError{Value: entry, Reason: "a port and any port at once"}
	}
	if e := insecure(entry, o, opt); e != nil {
		return e
	}
	if anyPort && o.Loopback() && o.scheme == "http" && !opt.DangerouslyAllowAnyLocalhostPort {
		return &PatternError{Value: entry, Reason: "any program on this machine can be the page; list the port, or for development set development.dangerously_allow_any_localhost_port"}
	}
	if sub {
		if e := checkSuffix(entry, o, opt); e != nil {
			return e
		}
		s.suffixes.add(o.host, patternEnd{o.scheme, o.port, anyPort})
		s.maxOrigin = MaxOrigin
	} else {
		s.ports[o.String()] = struct{}{}
		s.maxOrigin = max(s.maxOrigin, len(o.String())+len(":65535"))
	}
	s.patterns = append(s.patterns, entry)
	return nil
}

// checkSuffix refuses subdomain patterns whose base is nobody's own: an address has
// no subdomains, and below a public suffix everybody can register.
func checkSuffix(entry string, o Origin, opt OriginSetOptions) *PatternError {
	if o.isAddress() {
		return &PatternError{Value: entry, Reason: "an address has no subdomains"}
	}
	if o.host == "localhost" || strings.HasSuffix(o.host, ".localhost") || opt.DangerouslyAllowPublicSuffix {
		return nil
	}
	// A suffix may also be all that is below the base: *.compute.amazonaws.com.
	suffix, _ := publicsuffix.PublicSuffix(o.host)
	below, _ := publicsuffix.PublicSuffix("x." + o.host)
	if suffix == o.host || below == "x."+o.host || slices.Contains(abovePublicSuffixes, o.host) {
		return &PatternError{Value: entry, Reason: fmt.Sprintf("covers the public suffix %s, below which anybody can have a page; list registrable domains", o.host), PublicSuffix: true}
	}
	return nil
}

// abovePublicSuffixes are domains of clouds that are no public suffixes themselves but
// have some below them, which the list cannot be asked for.
var abovePublicSuffixes = []string{
	"amazonaws.com", "amazonaws.com.cn", "aws.dev", "windows.net", "azure.com", "azure.net", "googleapis.com", "oraclecloud.com",
	"myqcloud.com", "aliyuncs.com", "cloudflare.net", "fastly.net", "akamaized.net", "digitalocean.com", "linode.com", "vultr.com", "scw.cloud", "ovh.net",
}

// Any reports whether the set is "*".
func (s *OriginSet) Any() bool { return s.any }

// Patterns returns the entries that are patterns.
func (s *OriginSet) Patterns() []string { return slices.Clone(s.patterns) }

// Len returns the number of distinct entries.
func (s *OriginSet) Len() int {
	n := len(s.exact) + len(s.patterns)
	if s.any {
		n++
	}
	return n
}

// Lists reports whether origin, as it came in an Origin header, is in the set by name
// or pattern. "*" does not list anybody: see Any. It does not allocate.
func (s *OriginSet) Lists(origin string) bool {
	if len(origin) > s.maxOrigin {
		return false
	}
	if s.lengths[len(origin)/64]&(1<<(len(origin)%64)) != 0 {
		if _, ok := s.exact[origin]; ok {
			return true
		}
	}
	if len(s.patterns) == 0 {
		return false
	}
	scheme, rest, ok := strings.Cut(origin, "://")
	if !ok {
		return false
	}
	host, port, ok := splitPort(rest)
	// Looking up before checking the spelling: a stranger costs no more than the labels
	// that it shares with a pattern.
	return ok && (s.anyPortOf(scheme, host) || s.suffixes.covers(scheme, host, port)) && spelled(origin)
}

func spelled(origin string) bool {
	_, ok := scanOrigin(origin)
	return ok
}

func (s *OriginSet) anyPortOf(scheme, host string) bool {
	if len(s.ports) == 0 {
		return false
	}
	// Build the key in a buffer on the stack.
	var b [MaxOrigin]byte
	k := append(append(append(b[:0], scheme...), "://"...), host...)
	_, ok := s.ports[string(k)]
	return ok
}
