package gateway

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/egress"
)

// Fetch makes a route answer with what its callers name by URL, in the place of an upstream.
type Fetch struct {
	// Param is the parameter of the query that holds the URL; empty stands for "url".
	Param string
	// Policy says what may be fetched.
	Policy egress.Policy
}

// fetcher is a compiled Fetch.
type fetcher struct {
	param  string
	egress *egress.Guard
}

func newFetcher(f *Fetch) (*fetcher, error) {
	g, err := egress.New(f.Policy)
	if err != nil {
		return nil, err
	}
	return &fetcher{param: cmp.Or(f.Param, "url"), egress: g}, nil
}

// fetchMethods are those of a list that a fetch route can have.
func fetchMethods(list []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(m string) bool { return m != http.MethodGet && m != http.MethodHead })
}

// target is the URL that the request names.
func (f *fetcher) target(r *http.Request) (string, guard.Decision) {
	values := r.URL.Query()[f.param]
	if len(values) != 1 {
		return "", guard.Denial(guard.EgressNotAllowed, "query", "", "the parameter "+f.param+", once")
	}
	return values[0], guard.Decision{}
}

// decide judges what can be judged without fetching.
func (f *fetcher) decide(r *http.Request) guard.Decision {
	target, d := f.target(r)
	if !d.Denied() {
		_, d = f.egress.Decide(target)
	}
	return d
}

// fetch answers an admitted request with what it names.
func (g *Gateway) fetch(st *state, x *exchange, w http.ResponseWriter, r *http.Request) {
	target, d := x.route.fetch.target(r)
	if d.Denied() {
		g.end(st, x, w, r, d)
		return
	}
	x.budget.Sent()
	start := time.Now()
	res, d, err := x.route.fetch.egress.Fetch(r.Context(), r.Method, target, r.Header)
	if err != nil {
		d = upstreamFailure(r, err)
	}
	if d.Denied() {
		g.end(st, x, w, r, d)
		return
	}
	x.route.stats.answered(res.StatusCode, time.Since(start))
	res.Body = x.budget.Count(res.Body)
	err = g.copyResponse(x.route, w, r, res)
	res.Body.Close() //nolint:errcheck // nothing is left to lose.
	var (
		gone     clientGone
		tooLarge *egress.TooLargeError
	)
	switch {
	case err == nil:
		x.route.stats.count(guard.OK, guard.Enforce)
		return
	case r.Context().Err() != nil || errors.As(err, &gone):
		x.route.stats.count(guard.RequestAborted, guard.Enforce)
	case errors.As(err, &tooLarge):
		g.obs.record(st, x, r, egress.TooLarge(tooLarge.Most), guard.Enforce)
	default:
		g.obs.record(st, x, r, guard.Denial(guard.UpstreamAborted, "the fetched body", err.Error(), "a whole body"), guard.Enforce)
	}
	panic(http.ErrAbortHandler) // the part must not pass for the whole
}
