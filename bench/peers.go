// Package bench measures moat's guards beside the programs and packages that a user
// would choose instead, and compares their verdicts.
//
// It is a module of its own, so that none of those packages is part of moat.
package bench

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	jub0bs "github.com/jub0bs/cors"
	rs "github.com/rs/cors"

	"github.com/moat-gateway/moat/guard/cors"
	"github.com/moat-gateway/moat/guard/crosssite"
	"github.com/moat-gateway/moat/web"
)

// Policy is what all contestants are configured from. Its origins are spelt as
// web.NewOriginSet wants them.
type Policy struct {
	Origins        []string
	Public         []string
	Credentials    bool
	Methods        []string
	RequestHeaders []string
	ExposedHeaders []string
	MaxAge         time.Duration

	// The rest is the cross-site guard's alone.
	SideEffects, AllowSameSite, AllowEmbed, AllowBrowserless bool
}

// Middleware wraps a handler.
type Middleware func(http.Handler) http.Handler

// Contestant is an implementation that can be configured from a Policy.
type Contestant struct {
	Name string
	New  func(Policy) (Middleware, error)
}

// ErrInexpressible says that a contestant has no configuration for a Policy.
var ErrInexpressible = errors.New("this contestant cannot be configured so")

// Moat, Jub0bs and RS implement the CORS protocol; CrossSite and Std refuse
// cross-site requests.
var (
	Moat      = Contestant{"moat", newMoat}
	Jub0bs    = Contestant{"jub0bs", newJub0bs}
	RS        = Contestant{"rs", newRS}
	CrossSite = Contestant{"crosssite", newCrossSite}
	Std       = Contestant{"net/http", newStd}
)

func originSet(list []string) (*web.OriginSet, error) {
	set, faults := web.NewOriginSet(list, web.OriginSetOptions{})
	errs := make([]error, len(faults))
	for i, f := range faults {
		errs[i] = f
	}
	return set, errors.Join(errs...)
}

func publicOrigins(list []string) (*web.PublicOrigins, error) {
	origins := make([]web.Origin, len(list))
	for i, s := range list {
		o, err := web.ParseOrigin(s)
		if err != nil {
			return nil, err
		}
		origins[i] = o
	}
	return web.NewPublicOrigins(origins), nil
}

func newMoat(p Policy) (Middleware, error) {
	origins, err := originSet(p.Origins)
	if err != nil {
		return nil, err
	}
	public, err := publicOrigins(p.Public)
	if err != nil {
		return nil, err
	}
	g, faults := cors.New(cors.Policy{
		Origins: origins, Public: public, Credentials: p.Credentials, Methods: p.Methods,
		RequestHeaders: p.RequestHeaders, ExposedHeaders: p.ExposedHeaders, MaxAge: p.MaxAge,
	})
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return g.Handler, nil
}

func newCrossSite(p Policy) (Middleware, error) {
	origins, err := originSet(p.Origins)
	if err != nil {
		return nil, err
	}
	public, err := publicOrigins(p.Public)
	if err != nil {
		return nil, err
	}
	return crosssite.New(crosssite.Policy{
		Origins: origins, Public: public, SideEffects: p.SideEffects, AllowSameSite: p.AllowSameSite,
		AllowEmbed: p.AllowEmbed, AllowBrowserless: p.AllowBrowserless,
	}).Handler, nil
}

func newJub0bs(p Policy) (Middleware, error) {
	seconds := int(p.MaxAge / time.Second)
	if p.MaxAge < 0 {
		seconds = -1
	}
	m, err := jub0bs.NewMiddleware(jub0bs.Config{
		Origins: p.Origins, Credentialed: p.Credentials, Methods: p.Methods, RequestHeaders: p.RequestHeaders,
		ResponseHeaders: p.ExposedHeaders, MaxAgeInSeconds: seconds,
	})
	if err != nil {
		return nil, err
	}
	return m.Wrap, nil
}

func newRS(p Policy) (Middleware, error) {
	var origins []string
	for _, o := range p.Origins {
		// Its "*" stands for one or more of any bytes, and only one may stand in an
		// entry: any port is two entries, and any port of any subdomain is none.
		host, anyPort := strings.CutSuffix(o, ":*")
		if anyPort && strings.Contains(host, "*") {
			return nil, fmt.Errorf("%w: %s", ErrInexpressible, o)
		}
		if anyPort {
			origins = append(origins, host)
		}
		origins = append(origins, o)
	}
	if len(origins) == 0 {
		return nil, fmt.Errorf("%w: an empty list means every origin", ErrInexpressible)
	}
	seconds := int(p.MaxAge / time.Second)
	if p.MaxAge < 0 {
		seconds = -1
	}
	return rs.New(rs.Options{
		AllowedOrigins: origins, AllowCredentials: p.Credentials, AllowedMethods: p.Methods,
		AllowedHeaders: slices.Clone(p.RequestHeaders), ExposedHeaders: p.ExposedHeaders, MaxAge: seconds,
	}).Handler, nil
}

func newStd(p Policy) (Middleware, error) {
	c := http.NewCrossOriginProtection()
	for _, o := range p.Origins {
		if o == "*" {
			continue // lists nobody for the cross-site guard either
		}
		// Patterns are accepted, and never match.
		if err := c.AddTrustedOrigin(o); err != nil {
			if strings.Contains(o, "*") {
				continue
			}
			return nil, err
		}
	}
	return c.Handler, nil
}
