// Package cookie adds to the cookies that an upstream sets the restrictions that its
// policy asks for, and has browsers keep some under a name with a prefix, which the
// upstream never sees.
//
// It protects the user's session from other sites' requests (SameSite), from the network
// (Secure), from script that was injected into a page (HttpOnly), and from sibling
// subdomains that plant a cookie of the same name (__Host-). Lines are read as browsers
// read them (RFC 6265bis section 5.6), and what needs no change keeps every byte.
//
// It does not protect cookies that script sets, and believes the upstream about values.
//
// There is no middleware for answers: it would need a ResponseWriter of its own, and take
// from those behind it what the server's can do. Call Response in ModifyResponse of
// httputil.ReverseProxy, and Request in Rewrite.
package cookie
