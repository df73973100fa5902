// Package assume makes Principals whom nobody has verified. It is for judging a request on
// paper, as the tests of a configuration do: no request that arrives is ever judged with one.
package assume

import (
	"time"

	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/guard/identity/internal/principal"
)

// Who is whom to take for granted.
type Who struct {
	Source, Subject string
	Method          identity.Method
	Scopes, Roles   []string
	Claims          map[string]any
	Credential      string
	Expires         time.Time
}

// Principal makes a Principal of it.
func Principal(w Who) *identity.Principal {
	return principal.New(principal.Facts{
		Source: w.Source, Subject: w.Subject, Method: w.Method, Scopes: w.Scopes, Roles: w.Roles, Claims: w.Claims, Credential: w.Credential, Expires: w.Expires,
	})
}
