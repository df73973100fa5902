// Package assertion tells an upstream who calls, as the gate has found out: in headers, or in
// a short-lived token that the gate signs, so that the upstream need not believe the network.
//
// It protects upstreams from callers who say for themselves who they are, as long as the gate
// scrubs the headers that it owns (see Guard.Names) from every request, and from values that
// would read as something else than they are: a name with a line end or a comma in it.
//
// Headers alone protect nothing where an upstream can be reached without passing the gate;
// a token does, if the upstream checks signature, issuer, audience and time. Both are as true
// as the verifier's word. Whoever reads a token on its way has it until it expires: it is a
// bearer token, for one audience.
package assertion
