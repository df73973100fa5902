package credential

import (
	"net/http"

	"github.com/moat-gateway/moat/guard"
)

// DeniedError is the error of a Transport that sends nothing, or passes no answer on.
type DeniedError struct{ Decision guard.Decision }

func (e *DeniedError) Error() string { return "credential: " + e.Decision.Reason.String() }

// Transport is a RoundTripper around next, for those who use the guard without the
// gateway: for an httputil.ReverseProxy, say. The caller's own credentials are removed,
// and echoed, which may be nil, is told where an answer repeated ours.
func (g *Guard) Transport(next http.RoundTripper, echoed func(where string)) http.RoundTripper {
	if echoed == nil {
		echoed = func(string) {}
	}
	return &transport{g, next, echoed}
}

type transport struct {
	guard  *Guard
	next   http.RoundTripper
	echoed func(where string)
}

// RoundTrip leaves the request as it is, as a RoundTripper must.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	out := r.Clone(r.Context())
	StripCaller(out.Header)
	sent, d := t.guard.Use(r.Context(), out.Header, out.URL)
	if d.Denied() {
		if r.Body != nil {
			r.Body.Close() //nolint:errcheck // nobody will read it.
		}
		return nil, &DeniedError{d}
	}
	res, err := t.next.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	if d = sent.Answer(res, t.echoed); d.Denied() {
		res.Body.Close() //nolint:errcheck // it will not be used.
		return nil, &DeniedError{d}
	}
	return res, nil
}
