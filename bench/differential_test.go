package bench

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The differential tests give generated policies and requests to the guards and to
// those that do the same, and compare what a browser would conclude. Where they differ
// on purpose, a difference below has a name and a reason. A disagreement that no name
// covers fails, cut down to a minimal case; so does a name that covers none.

// aspect is something that a browser or the backend notices.
type aspect uint8

const (
	ran    aspect = 1 << iota // the handler saw the request
	reads                     // the page may read the answer, without or with credentials
	passes                    // the preflight passes, without or with credentials
	status                    // the preflight is answered with success
	expose                    // what may be read of the answer's headers
	age                       // for how long the preflight is remembered
)

var aspectNames = []string{"ran", "reads", "passes", "status", "expose", "age"}

func (a aspect) String() string {
	var names []string
	for i, n := range aspectNames {
		if a&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return strings.Join(names, "+")
}

// What a page can be granted: with credentials, without, or both.
const (
	anonymous uint8 = 1 << iota
	credentialed
)

// verdict is what follows from an answer. Each of the first four is a set of grants;
// for ran and status, 1 is yes.
type verdict struct {
	ran, reads, passes, status uint8
	expose                     [2]string
	age                        string
}

func (v verdict) String() string {
	grants := func(set uint8) string { return [...]string{"no", "anonymous", "credentialed", "both"}[set&3] }
	return fmt.Sprintf("handler ran: %v; page reads: %s (headers %q); preflight passes: %s (for %q s), success: %v",
		v.ran == 1, grants(v.reads), v.expose, grants(v.passes), v.age, v.status == 1)
}

// differs returns the aspects in which v grants less than w and those in which it
// grants more, or otherwise.
func (v verdict) differs(w verdict) (less, more aspect) {
	for _, p := range []struct {
		a          aspect
		ours, them uint8
	}{{ran, v.ran, w.ran}, {reads, v.reads, w.reads}, {passes, v.passes, w.passes}, {status, v.status, w.status}} {
		if p.them&^p.ours != 0 {
			less |= p.a
		}
		if p.ours&^p.them != 0 {
			more |= p.a
		}
	}
	// Whoever grants nothing exposes nothing; that is no second difference.
	if v.reads == w.reads && v.expose != w.expose {
		more |= expose
	}
	if v.passes == w.passes && v.age != w.age {
		more |= age
	}
	return less, more
}

// testCase is a policy and a request.
type testCase struct {
	Policy  Policy
	Method  string
	Host    string
	Headers http.Header
}

func (c *testCase) first(name string) string { return c.Headers.Get(name) }
func (c *testCase) origin() string           { return c.first("Origin") }

func (c *testCase) request() *http.Request {
	return &http.Request{
		Method: c.Method, Host: c.Host, URL: &url.URL{Path: "/v1/items"}, Header: c.Headers.Clone(),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody,
	}
}

func (c *testCase) String() string {
	var b strings.Builder
	p := c.Policy
	fmt.Fprintf(&b, "policy: origins %q, public %q, credentials %v, methods %q, request headers %q, exposed headers %q, max age %s\n",
		p.Origins, p.Public, p.Credentials, p.Methods, p.RequestHeaders, p.ExposedHeaders, p.MaxAge)
	fmt.Fprintf(&b, "        side effects %v, same site %v, embed %v, browserless %v\n", p.SideEffects, p.AllowSameSite, p.AllowEmbed, p.AllowBrowserless)
	fmt.Fprintf(&b, "request: %s, Host %q", c.Method, c.Host)
	for _, name := range slices.Sorted(mapKeys(c.Headers)) {
		fmt.Fprintf(&b, "\n         %s: %.200q", name, c.Headers[name])
	}
	return b.String()
}

func mapKeys(h http.Header) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range h {
			if !yield(k) {
				return
			}
		}
	}
}

// corsVerdict is what follows from the answer of a CORS middleware.
func corsVerdict(c *testCase, x *Exchange) verdict {
	x.Request = c.request()
	x.Do()
	var v verdict
	if x.Ran {
		v.ran = 1
	}
	if len(c.Headers["Origin"]) == 0 {
		return v
	}
	names := c.names()
	for i, grant := range []uint8{anonymous, credentialed} {
		credentials := grant == credentialed
		switch {
		case !c.preflight() && corsCheck(c.origin(), credentials, x.Header):
			v.reads |= grant
			v.expose[i] = exposed(credentials, x.Header)
		case c.preflight() && preflightPasses(c.origin(), c.asks(), names, credentials, x.Status, x.Header):
			v.passes |= grant
			v.age = maxAge(x.Header)
		}
	}
	if c.preflight() && x.Status/100 == 2 {
		v.status = 1
	}
	return v
}

func crossSiteVerdict(c *testCase, x *Exchange) verdict {
	x.Request = c.request()
	x.Do()
	if x.Ran {
		return verdict{ran: 1}
	}
	return verdict{}
}

// comparison is a guard, those that do the same, and how they may differ.
type comparison struct {
	group   Group
	verdict func(*testCase, *Exchange) verdict
	// reference is what ours must find; it leaves out expose and age.
	reference   func(*testCase) verdict
	differences []difference
	counts      []int
	compared    int
}

// unexplained gives the case to ours and to another, and returns the aspects in which
// they differ without a name for it. With count, it counts the names.
func (cmp *comparison) unexplained(c *testCase, ours, theirs *Exchange, with string, count bool) (aspect, verdict, verdict) {
	v, w := cmp.verdict(c, ours), cmp.verdict(c, theirs)
	less, more := v.differs(w)
	left := less | more
	if left == 0 {
		return 0, v, w
	}
	for i, d := range cmp.differences {
		which := more
		if d.stricter {
			which = less
		}
		if d.with != "" && d.with != with || d.in&which == 0 || !d.when(c) {
			continue
		}
		left &^= d.in & which
		if count {
			cmp.counts[i]++
		}
	}
	return left, v, w
}

// wrong reports whether ours finds something else than the reference. That the two
// guards differ in a named way does not make ours right.
func (cmp *comparison) wrong(c *testCase, ours *Exchange) bool {
	v, want := cmp.verdict(c, ours), cmp.reference(c)
	return v.ran != want.ran || v.reads != want.reads || v.passes != want.passes || v.status != want.status
}

// run compares n requests to the policy that newCase keeps in each case.
func (cmp *comparison) run(t *testing.T, r *rand.Rand, policy Policy, n int, newRequest func(*rand.Rand, *testCase)) {
	t.Helper()
	ours := cmp.build(t, cmp.group.Ours, policy)
	for _, contestant := range cmp.group.Theirs {
		theirs := cmp.build(t, contestant, policy)
		if theirs == nil {
			continue
		}
		for range n {
			c := &testCase{Policy: policy, Headers: make(http.Header)}
			newRequest(r, c)
			cmp.compared++
			if left, _, _ := cmp.unexplained(c, ours, theirs, contestant.Name, true); left != 0 || cmp.wrong(c, ours) {
				cmp.fail(t, c, contestant)
			}
		}
	}
}

// build returns nil if the contestant has no configuration for the policy.
func (cmp *comparison) build(t *testing.T, contestant Contestant, p Policy) *Exchange {
	t.Helper()
	wrap, err := contestant.New(p)
	if err != nil {
		if contestant.Name != cmp.group.Ours.Name && (errors.Is(err, ErrInexpressible) || len(p.Origins) == 0) {
			return nil
		}
		t.Fatalf("%s: %v\n%+v", contestant.Name, err, p)
	}
	return NewExchange(wrap, nil)
}

// fail reports a disagreement, after taking everything out of it that it does not need.
func (cmp *comparison) fail(t *testing.T, c *testCase, contestant Contestant) {
	t.Helper()
	disagree := func(c *testCase) bool {
		mine, err := cmp.group.Ours.New(c.Policy)
		if err != nil {
			return false
		}
		other, err := contestant.New(c.Policy)
		if err != nil {
			return false
		}
		ours := NewExchange(mine, nil)
		left, _, _ := cmp.unexplained(c, ours, NewExchange(other, nil), contestant.Name, false)
		return left != 0 || cmp.wrong(c, ours)
	}
	for smaller := true; smaller; {
		smaller = false
		for _, s := range c.simpler() {
			if disagree(s) {
				c, smaller = s, true
				break
			}
		}
	}
	left, v, w := cmp.unexplained(c, cmp.build(t, cmp.group.Ours, c.Policy), cmp.build(t, contestant, c.Policy), contestant.Name, false)
	what := fmt.Sprintf("they disagree (%v), and no difference is named for it", left)
	if left == 0 {
		what = "ours is not what the reference wants"
	}
	t.Fatalf("%s\n%v\n%s: %v\n%s: %v\nreference: %v", what, c, cmp.group.Ours.Name, v, contestant.Name, w, cmp.reference(c))
}

// simpler returns cases that are each a little smaller.
func (c *testCase) simpler() (list []*testCase) {
	with := func(change func(*testCase)) {
		s := *c
		s.Headers = c.Headers.Clone()
		change(&s)
		list = append(list, &s)
	}
	for name, values := range c.Headers {
		with(func(s *testCase) { delete(s.Headers, name) })
		for i, v := range values {
			if len(values) > 1 {
				with(func(s *testCase) { s.Headers[name] = slices.Delete(s.Headers[name], i, i+1) })
			}
			if parts := strings.Split(v, ","); len(parts) > 1 {
				for j := range parts {
					with(func(s *testCase) { s.Headers[name][i] = strings.Join(slices.Delete(slices.Clone(parts), j, j+1), ",") })
				}
			}
		}
	}
	shorter := func(get func(*testCase) *[]string) {
		for i := range *get(c) {
			with(func(s *testCase) { p := get(s); *p = slices.Delete(slices.Clone(*p), i, i+1) })
		}
	}
	shorter(func(c *testCase) *[]string { return &c.Policy.Origins })
	shorter(func(c *testCase) *[]string { return &c.Policy.Public })
	shorter(func(c *testCase) *[]string { return &c.Policy.Methods })
	shorter(func(c *testCase) *[]string { return &c.Policy.RequestHeaders })
	shorter(func(c *testCase) *[]string { return &c.Policy.ExposedHeaders })
	for _, flag := range []func(*Policy) *bool{
		func(p *Policy) *bool { return &p.Credentials }, func(p *Policy) *bool { return &p.SideEffects },
		func(p *Policy) *bool { return &p.AllowSameSite }, func(p *Policy) *bool { return &p.AllowEmbed },
		func(p *Policy) *bool { return &p.AllowBrowserless },
	} {
		if *flag(&c.Policy) {
			with(func(s *testCase) { *flag(&s.Policy) = false })
		}
	}
	if c.Policy.MaxAge != 0 {
		with(func(s *testCase) { s.Policy.MaxAge = 0 })
	}
	return list
}

// finish reports the counts, and fails for a difference that never occurred.
func (cmp *comparison) finish(t *testing.T) {
	t.Helper()
	for i, d := range cmp.differences {
		with := d.with
		if with == "" {
			with = "all"
		}
		direction := "looser"
		if d.stricter {
			direction = "stricter"
		}
		t.Logf("%8d  %-8s ours is %-8s in %-24v %s", cmp.counts[i], with, direction, d.in, d.name)
		if cmp.counts[i] == 0 {
			t.Errorf("difference %q (with %s) never occurred: mend its predicate or strike it out", d.name, with)
		}
	}
	t.Logf("%8d  cases compared", cmp.compared)
}

// seed is $MOAT_SEED, a number or "random", or 1.
func seed(t *testing.T) uint64 {
	t.Helper()
	s := os.Getenv("MOAT_SEED")
	n := uint64(1)
	switch s {
	case "":
	case "random":
		n = uint64(time.Now().UnixNano())
	default:
		var err error
		if n, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("MOAT_SEED: %v", err)
		}
	}
	t.Logf("MOAT_SEED=%d", n)
	return n
}

// perPolicy is how many requests are made for each policy.
const perPolicy = 50

func policies(all int) int {
	if testing.Short() {
		return all / 3
	}
	return all
}

func TestCORSAgreesWithOthers(t *testing.T) {
	cmp := &comparison{group: CORSGroup, verdict: corsVerdict, reference: corsReference, differences: corsDifferences, counts: make([]int, len(corsDifferences))}
	s := seed(t)
	for i := range policies(1700) {
		r := rand.New(rand.NewPCG(s, uint64(i)))
		cmp.run(t, r, corsPolicy(r), perPolicy, corsRequest)
	}
	cmp.finish(t)
}

func TestCrossSiteAgreesWithNetHTTP(t *testing.T) {
	cmp := &comparison{group: CrossSiteGroup, verdict: crossSiteVerdict, reference: crossSiteReference, differences: crossSiteDifferences, counts: make([]int, len(crossSiteDifferences))}
	s := seed(t)
	for i := range policies(800) {
		r := rand.New(rand.NewPCG(s, uint64(i)))
		cmp.run(t, r, crossSitePolicy(r), perPolicy, crossSiteRequest)
	}
	cmp.finish(t)
}
