// Package session signs users in at the gate: the OpenID Connect authorization code flow with
// PKCE, for browsers whose pages never see a token. What the browser gets is a cookie that
// names a session in a Store.
//
// It protects a page's users from whoever can run script in the page and would carry their
// tokens away, from who would sign them in as somebody else (login CSRF) or plant a session
// (fixation), and from who can read the Store: an entry's name is a hash of the cookie, and
// its content is sealed with a key that is made of the cookie, so it is of use only to the
// browser that it belongs to.
//
// It believes the provider with who the user is, and nobody else: not the browser, not the
// Host header, not the Store beyond what is sealed. Whoever has stolen the cookie is the user
// until the session ends. A cookie says nothing about whose page made a request: that is for
// crosssite and csrf.
//
// Without its Store it cannot tell sessions from forgeries, so it fails closed.
package session
