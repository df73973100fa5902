package identity

import "github.com/moat-gateway/moat/guard/identity/internal/principal"

// Principal is who makes a request, as a verifier has found out. Only the packages below
// this one can make one. It is immutable.
type Principal = principal.Principal

// Method is how somebody was identified.
type Method = principal.Method

// The methods. Session is the only one whose credential a browser sends by itself.
const (
	JWT           = principal.JWT
	APIKey        = principal.APIKey
	Introspection = principal.Introspection
	Session       = principal.Session
)
