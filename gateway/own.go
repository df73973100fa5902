package gateway

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/moat-gateway/moat/client"
	"github.com/moat-gateway/moat/guard"
)

// OwnPath is where the gate itself answers, before any route of the configuration.
const OwnPath = "/.moat/"

// compileOwn adds a route that the gate itself answers. Its requests take the same data
// path as all others.
func (g *Gateway) compileOwn(s *state, c *Config, r Route, answer answerer) (*route, error) {
	rt, err := g.compileRoute(s, c, r, nil, func(st *state, x *exchange, w http.ResponseWriter, r *http.Request) {
		g.patience(w, r)(true) // none of them waits long before it answers
		answer(st, x, w, r)
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Name, err)
	}
	// Scripts and keys are the same for everybody, and other servers fetch some of them.
	rt.modes[guard.Bot] = guard.Off
	rt.stats = g.obs.routeStats(r.Name)
	s.ownMux.Handle(r.Pattern, rt)
	s.own = append(s.own, rt)
	return rt, nil
}

// scriptAnswerer serves what a page loads. It is the same for everybody, and holds no secret.
func scriptAnswerer(f client.File) answerer {
	sum := sha256.Sum256(f.Body)
	header := http.Header{
		"Content-Type": {f.ContentType}, "X-Content-Type-Options": {"nosniff"}, "Etag": {fmt.Sprintf("%q", hex.EncodeToString(sum[:8]))},
		"Cache-Control": {"public, max-age=3600"}, "Cross-Origin-Resource-Policy": {"cross-origin"},
	}
	return func(_ *state, x *exchange, w http.ResponseWriter, r *http.Request) {
		x.route.stats.count(guard.OK, guard.Enforce)
		maps.Copy(w.Header(), header)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.Body))
	}
}

// answerer answers a request that has been admitted.
type answerer func(st *state, x *exchange, w http.ResponseWriter, r *http.Request)

// ownsPath reports whether the gate itself answers at this path, or nobody.
func ownsPath(path string) bool { return strings.HasPrefix(path, OwnPath) }
