package bench

import (
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// difference is a disagreement that is meant.
type difference struct {
	with string // the other contestant, or "" for all
	name string
	why  string
	// in is what the two disagree about.
	in aspect
	// stricter says that ours is the one that grants less.
	stricter bool
	// when holds for the cases in which the two differ so.
	when func(c *testCase) bool
}

var corsDifferences = []difference{
	{
		name:     "denied actual requests stop",
		why:      "the backend must not do the work whose answer the page may not read; the others only hide the answer",
		in:       ran,
		stricter: true,
		when:     func(c *testCase) bool { return c.actual() && c.one("Origin") && !c.listed() && !c.sameOrigin() },
	},
	{
		name:     "several Origins are refused",
		why:      "no browser sends two, and who takes the first trusts whoever put it there; jub0bs does, rs passes the request on",
		in:       ran | reads | passes | status,
		stricter: true,
		when:     func(c *testCase) bool { return !c.one("Origin") },
	},
	{
		name:     "several Access-Control-Request-Methods are refused",
		why:      "no browser sends two, and it would not be clear which one the answer is for",
		in:       passes | status,
		stricter: true,
		when:     func(c *testCase) bool { return c.preflight() && !c.one("Access-Control-Request-Method") },
	},
	{
		with:     "jub0bs",
		name:     "what no browser writes matches no pattern",
		why:      "jub0bs compares the end of the host and does not look at the rest, so user information, slashes and blanks pass",
		in:       reads | passes | status,
		stricter: true,
		when:     func(c *testCase) bool { return !c.spelt() && !c.listed() },
	},
	{
		with:     "jub0bs",
		name:     "GET, HEAD and POST must be listed",
		why:      "jub0bs lets a preflight for a safelisted method pass whatever the policy lists, as the standard does; a route that is not for POST can say so here",
		in:       passes | status,
		stricter: true,
		when:     func(c *testCase) bool { return c.preflight() && c.safeMethod(c.asks()) && !c.allowsMethod(c.asks()) },
	},
	{
		with: "jub0bs",
		name: "a policy of origins alone answers preflights",
		why:  "a preflight for POST without unsafe headers is legal (upload listeners, streamed bodies); jub0bs refuses all unless it was told of methods or headers beyond the safelisted ones",
		in:   passes | status,
		when: func(c *testCase) bool {
			return c.preflight() && len(c.Policy.RequestHeaders) == 0 && !slices.ContainsFunc(c.Policy.Methods, func(m string) bool { return !c.safeMethod(m) })
		},
	},
	{
		with: "jub0bs",
		name: "header names in any order, in any case, and repeated (jub0bs)",
		why:  "only the set of names counts; proxies reorder and recase them. jub0bs wants them as browsers write them",
		in:   passes | status,
		when: func(c *testCase) bool { return c.preflight() && !c.asBrowsersWrite() },
	},
	{
		with: "jub0bs",
		name: "more than two blanks around a header name (jub0bs)",
		why:  "RFC 9110 section 5.6.1 has no bound for them; ours is sixteen bytes beyond the longest name",
		in:   passes | status,
		when: func(c *testCase) bool { _, _, all := c.blanks(); return c.preflight() && all > 2 },
	},
	{
		with:     "rs",
		name:     "denied preflights fail",
		why:      "rs answers them 204 without CORS headers, so proxies, monitors and people take them for successes",
		in:       status,
		stricter: true,
		when:     func(c *testCase) bool { return c.preflight() },
	},
	{
		with: "rs",
		name: "unlisted methods stay readable",
		why:  "rs hides the answer to a method that is not listed, after the backend has run; here it is the bounds guard that refuses it before",
		in:   reads,
		when: func(c *testCase) bool {
			return c.actual() && c.listed() && c.Method != http.MethodOptions && !c.allowsMethod(c.Method)
		},
	},
	{
		with:     "rs",
		name:     "OPTIONS is a method like others",
		why:      "rs lets a preflight that asks for OPTIONS pass whatever is listed",
		in:       passes,
		stricter: true,
		when: func(c *testCase) bool {
			return c.preflight() && c.asks() == http.MethodOptions && !c.allowsMethod(http.MethodOptions)
		},
	},
	{
		with:     "rs",
		name:     "no methods means none",
		why:      "rs takes an empty list for GET, HEAD and POST",
		in:       passes,
		stricter: true,
		when:     func(c *testCase) bool { return c.preflight() && len(c.Policy.Methods) == 0 && c.safeMethod(c.asks()) },
	},
	{
		with:     "rs",
		name:     "no request headers means none",
		why:      "rs takes an empty list for Accept, Content-Type and X-Requested-With",
		in:       passes,
		stricter: true,
		when: func(c *testCase) bool {
			return c.preflight() && len(c.Policy.RequestHeaders) == 0 && len(c.names()) > 0
		},
	},
	{
		with: "rs",
		name: "header names in any order, in any case, and repeated (rs)",
		why:  "as for jub0bs",
		in:   passes,
		when: func(c *testCase) bool { return c.preflight() && !c.asBrowsersWrite() },
	},
	{
		with: "rs",
		name: "more than one blank at a side of a header name (rs)",
		why:  "as for jub0bs",
		in:   passes,
		when: func(c *testCase) bool {
			before, behind, _ := c.blanks()
			return c.preflight() && (before > 1 || behind > 1)
		},
	},
	{
		with: "rs",
		name: "each name once, and sixteen empty elements",
		why:  "browsers name each header once, so the names of the policy are as many as can come; rs has one bound for names and empty elements",
		in:   passes,
		when: func(c *testCase) bool { return c.preflight() && (c.empty() > 16 || c.repeats()) },
	},
	{
		with:     "rs",
		name:     "the wildcard does not cover Authorization",
		why:      "the standard keeps it apart on purpose; rs echoes whatever was asked for",
		in:       passes,
		stricter: true,
		when: func(c *testCase) bool {
			return c.preflight() && slices.Contains(c.Policy.RequestHeaders, "*") && slices.Contains(c.names(), "authorization")
		},
	},
	{
		with: "rs",
		name: "the wildcard is answered with a wildcard",
		why:  "rs answers it with what was asked for, and so with any bytes that came; here with what is no header name, which makes browsers refuse the whole list",
		in:   passes,
		when: func(c *testCase) bool {
			return c.preflight() && slices.Contains(c.Policy.RequestHeaders, "*") && slices.ContainsFunc(c.names(), func(n string) bool { return !token.MatchString(n) })
		},
	},
	{
		with: "rs",
		name: "an empty first line of header names hides no others",
		why:  "rs sends no Access-Control-Allow-Headers if the first of several lines is empty, and so refuses what it allows",
		in:   passes,
		when: func(c *testCase) bool {
			lines := c.Headers["Access-Control-Request-Headers"]
			return c.preflight() && len(lines) > 1 && lines[0] == "" && len(c.names()) > 0
		},
	},
	{
		with: "rs",
		name: "a preflight has an Origin",
		why:  "without one an OPTIONS is the backend's to answer; rs answers it",
		in:   ran,
		when: func(c *testCase) bool {
			return c.Method == http.MethodOptions && len(c.Headers["Origin"]) == 0 && c.asks() != ""
		},
	},
	{
		with:     "rs",
		name:     "a preflight with an empty method is one",
		why:      "no browser sends it; rs passes it to the backend",
		in:       ran | status,
		stricter: true,
		when: func(c *testCase) bool {
			return c.preflight() && c.asks() == ""
		},
	},
	{
		with:     "rs",
		name:     "the case of Origin counts",
		why:      "rs compares in lower case and reflects what came",
		in:       reads | passes,
		stricter: true,
		when:     func(c *testCase) bool { return c.origin() != strings.ToLower(c.origin()) && !c.listed() },
	},
	{
		with:     "rs",
		name:     "a wildcard stands for labels or a port",
		why:      "the wildcard of rs stands for any bytes: user information, slashes, any text in place of the port",
		in:       reads | passes,
		stricter: true,
		when:     func(c *testCase) bool { return !c.spelt() && !c.listed() },
	},
	{
		with: "rs",
		name: "an empty Origin is any origin",
		why:  "no browser sends it; rs takes it for none",
		in:   reads | passes,
		when: func(c *testCase) bool { return c.any() && len(c.Headers["Origin"]) > 0 && c.origin() == "" },
	},
}

var crossSiteDifferences = []difference{
	{
		name:     "cross-site embedding",
		why:      "an image, script or no-cors fetch of another site carries SameSite=None cookies and can be measured; net/http lets every GET pass",
		in:       ran,
		stricter: true,
		when: func(c *testCase) bool {
			return c.safe() && !c.socket() && !c.Policy.AllowEmbed && c.first("Sec-Fetch-Site") == "cross-site" && c.first("Sec-Fetch-Mode") == "no-cors"
		},
	},
	{
		name:     "WebSocket handshakes",
		why:      "a handshake is a GET to which CORS does not apply; net/http lets every GET pass",
		in:       ran,
		stricter: true,
		when:     func(c *testCase) bool { return c.safe() && c.socket() },
	},
	{
		name:     "a GET with side effects",
		why:      "net/http cannot be told that a GET changes state",
		in:       ran,
		stricter: true,
		when:     func(c *testCase) bool { return c.safe() && c.Policy.SideEffects },
	},
	{
		name:     "prefetches where there are side effects",
		why:      "nobody has asked for a speculative request, not even the page's own user",
		in:       ran,
		stricter: true,
		when: func(c *testCase) bool {
			return c.Policy.SideEffects && strings.HasPrefix(c.first("Sec-Purpose"), "prefetch")
		},
	},
	{
		name:     "clients that are no browsers",
		why:      "net/http passes every request with neither Origin nor Sec-Fetch-Site; here a route says whether it is for such clients",
		in:       ran,
		stricter: true,
		when: func(c *testCase) bool {
			return !c.Policy.AllowBrowserless && c.origin() == "" && c.first("Sec-Fetch-Site") == ""
		},
	},
	{
		name:     "user information in Origin",
		why:      "net/http parses Origin as a URL and drops it (golang/go#78563)",
		in:       ran,
		stricter: true,
		when:     func(c *testCase) bool { return c.oldBrowser() && strings.Contains(c.origin(), "@") },
	},
	{
		name:     "the scheme of Origin counts",
		why:      "net/http compares hosts only, so the http: page of whoever is on the path passes for the https: one",
		in:       ran,
		stricter: true,
		when: func(c *testCase) bool {
			return c.oldBrowser() && c.spelt() && !c.sameOrigin()
		},
	},
	{
		name:     "Origin is no URL",
		why:      "net/http parses Origin as a URL, so a path or a fragment does not make it another origin",
		in:       ran,
		stricter: true,
		when: func(c *testCase) bool {
			return c.oldBrowser() && !c.spelt() && strings.Contains(c.origin(), "://") && !strings.Contains(c.origin(), "@")
		},
	},
	{
		name:     "an empty Host",
		why:      "an HTTP/1.0 request may have none; net/http finds it equal to the host of an Origin that has none, such as null",
		in:       ran,
		stricter: true,
		when:     func(c *testCase) bool { return c.oldBrowser() && c.Host == "" },
	},
	{
		name:     "Sec-Fetch-Site: none with an Origin",
		why:      "what the user typed has no Origin, so the two contradict each other; net/http does not look at Origin then",
		in:       ran,
		stricter: true,
		when:     func(c *testCase) bool { return c.first("Sec-Fetch-Site") == "none" && c.origin() != "" },
	},
	{
		name: "same site",
		why:  "a policy may count pages of the same site as its own",
		in:   ran,
		when: func(c *testCase) bool { return c.Policy.AllowSameSite },
	},
	{
		name: "patterns",
		why:  "net/http accepts patterns as trusted origins, and compares them as they are",
		in:   ran,
		when: func(c *testCase) bool {
			return !slices.Contains(c.Policy.Origins, c.origin()) && naiveLists(c.Policy.Origins, c.origin())
		},
	},
	{
		name: "Host in another spelling",
		why:  "hosts have no case, and RFC 9110 section 4.2.3 makes the default port the same server; net/http compares bytes",
		in:   ran,
		when: func(c *testCase) bool { return c.sameOrigin() && !strings.HasSuffix(c.origin(), "://"+c.Host) },
	},
}

// What the predicates of the differences ask. None of them looks at a guard.

func (c *testCase) preflight() bool {
	return c.Method == http.MethodOptions && len(c.Headers["Access-Control-Request-Method"]) > 0 && len(c.Headers["Origin"]) > 0
}
func (c *testCase) actual() bool { return len(c.Headers["Origin"]) > 0 && !c.preflight() }
func (c *testCase) any() bool    { return slices.Contains(c.Policy.Origins, "*") }
func (c *testCase) listed() bool {
	return c.any() || naiveLists(c.Policy.Origins, c.origin())
}

// sameOrigin reports whether Origin and Host name the same public origin.
func (c *testCase) sameOrigin() bool {
	host := strings.ToLower(c.Host)
	for _, p := range c.Policy.Public {
		scheme, own, _ := strings.Cut(p, "://")
		if c.origin() == p && (host == own || host == own+":"+defaultPorts[scheme] && !strings.Contains(own, ":")) {
			return true
		}
	}
	return false
}

// spelt reports whether a browser could write this Origin.
func (c *testCase) spelt() bool {
	_, ok := parseNaive(c.origin())
	return ok
}

func (c *testCase) one(name string) bool { return len(c.Headers[name]) < 2 }

// elements are those of Access-Control-Request-Headers, as they came.
func (c *testCase) elements() (list []string) {
	for _, line := range c.Headers["Access-Control-Request-Headers"] {
		list = append(list, strings.Split(line, ",")...)
	}
	return list
}

// names are the header names that the preflight asks for.
func (c *testCase) names() (list []string) {
	for _, e := range c.elements() {
		if n := strings.Trim(e, " \t"); n != "" {
			list = append(list, asciiLower(n))
		}
	}
	return list
}

// asBrowsersWrite reports whether the names are in lower case, sorted, and each once,
// as https://fetch.spec.whatwg.org/#cors-unsafe-request-header-names has it.
func (c *testCase) asBrowsersWrite() bool {
	var last string
	for _, e := range c.elements() {
		n := strings.Trim(e, " \t")
		if n == "" {
			continue
		}
		if n != asciiLower(n) || n <= last {
			return false
		}
		last = n
	}
	return true
}

// blanks is how many blanks the worst element of the list has before its name, behind
// it, and altogether.
func (c *testCase) blanks() (before, behind, all int) {
	for _, e := range c.elements() {
		left := len(e) - len(strings.TrimLeft(e, " \t"))
		right := len(e) - len(strings.TrimRight(e, " \t"))
		all = max(all, len(e)-len(strings.Trim(e, " \t")))
		before, behind = max(before, left), max(behind, right)
	}
	return before, behind, all
}

func (c *testCase) empty() (n int) {
	for _, e := range c.elements() {
		if strings.Trim(e, " \t") == "" {
			n++
		}
	}
	return n
}

// repeats reports whether there are more names than the policy has.
func (c *testCase) repeats() bool { return len(c.names()) > len(c.Policy.RequestHeaders) }

func (c *testCase) asks() string { return c.first("Access-Control-Request-Method") }
func (c *testCase) safeMethod(m string) bool {
	return m == http.MethodGet || m == http.MethodHead || m == http.MethodPost
}
func (c *testCase) allowsMethod(m string) bool { return slices.Contains(c.Policy.Methods, m) }

func (c *testCase) safe() bool {
	return c.Method == http.MethodGet || c.Method == http.MethodHead || c.Method == http.MethodOptions
}

func (c *testCase) socket() bool {
	for _, line := range c.Headers["Upgrade"] {
		for v := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.Trim(v, " \t"), "websocket") {
				return true
			}
		}
	}
	return false
}

// oldBrowser reports whether Origin is all there is to go by.
func (c *testCase) oldBrowser() bool { return c.first("Sec-Fetch-Site") == "" && c.origin() != "" }

// corsReference is what the cors guard must find.
func corsReference(c *testCase) (v verdict) {
	grants := anonymous
	if c.Policy.Credentials {
		grants |= credentialed
	}
	switch {
	case len(c.Headers["Origin"]) == 0:
		return verdict{ran: 1}
	case !c.one("Origin"):
		return verdict{}
	case c.actual() && c.listed():
		return verdict{ran: 1, reads: grants}
	case c.actual() && (c.sameOrigin() || slices.Equal(c.Headers["Sec-Fetch-Site"], []string{"same-origin"})):
		return verdict{ran: 1}
	case c.actual(), !c.listed():
		return verdict{}
	case !c.one("Access-Control-Request-Method"), !c.allowsMethod(c.asks()):
		return verdict{}
	case !slices.Contains(c.Policy.RequestHeaders, "*"):
		if !naiveHeaders(c.Policy.RequestHeaders, c.Headers["Access-Control-Request-Headers"]) {
			return verdict{}
		}
	case slices.Contains(c.names(), "authorization") && !slices.Contains(c.Policy.RequestHeaders, "authorization"):
		return verdict{status: 1} // it is the browser that stops here
	}
	return verdict{passes: grants, status: 1}
}

// crossSiteReference is what the cross-site guard must find.
func crossSiteReference(c *testCase) verdict {
	p, origin, site := c.Policy, c.origin(), c.first("Sec-Fetch-Site")
	var pass bool
	switch {
	case origin == "" && site == "":
		pass = p.AllowBrowserless
	case c.safe() && !c.socket() && !p.SideEffects:
		pass = site != "cross-site" || p.AllowEmbed || c.first("Sec-Fetch-Mode") != "no-cors" &&
			!slices.Contains([]string{"object", "embed", "iframe", "frame", "fencedframe"}, c.first("Sec-Fetch-Dest"))
	case p.SideEffects && strings.HasPrefix(c.first("Sec-Purpose"), "prefetch"):
		pass = false
	default:
		sameSite := origin != "null" && (site == "same-site" || site == "" && c.sameSite())
		pass = site == "same-origin" || site == "none" && origin == "" && !c.safe() || site == "" && c.sameOrigin() || naiveLists(p.Origins, origin) || p.AllowSameSite && sameSite
	}
	if pass {
		return verdict{ran: 1}
	}
	return verdict{}
}

// sameSite reports whether Origin is of the site of a public origin with this Host.
func (c *testCase) sameSite() bool {
	o, ok := parseNaive(c.origin())
	if !ok {
		return false
	}
	site := func(o naiveOrigin) string {
		host := strings.Join(o.labels, ".")
		if domain, err := publicsuffix.EffectiveTLDPlusOne(host); err == nil {
			host = domain
		}
		return o.scheme + "://" + host
	}
	for _, p := range c.Policy.Public {
		public, _ := parseNaive(p)
		own := &testCase{Policy: Policy{Public: []string{p}}, Host: c.Host, Headers: http.Header{"Origin": {p}}}
		if own.sameOrigin() && site(o) == site(public) {
			return true
		}
	}
	return false
}
