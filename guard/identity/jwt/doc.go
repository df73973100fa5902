// Package jwt verifies access tokens that are signed JWTs (RFC 7519, RFC 9068), with the
// issuer's keys, which it fetches and keeps itself.
//
// It believes what an issuer of the configuration has signed, with one of the algorithms that
// the configuration lists for it, for an audience that it lists. It never takes a key, the
// place of one, or the choice of an algorithm from a token.
//
// It does not protect from whoever has stolen a token: until it expires or is revoked, he is
// its subject. RequireProof and package dpop bind tokens to a key. A token is signed, not
// encrypted: whoever sees it reads it.
//
// Where the issuer does not answer, its keys stay good for Policy.StaleFor: they are public,
// and were its own a moment ago, so refusing everybody would gain nothing but the few minutes
// in which a key was withdrawn. Without any keys nothing is accepted.
package jwt
