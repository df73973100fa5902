// Package introspection identifies callers by opaque tokens, which only the authorization
// server that issued them can read: it is asked (RFC 7662), and its answer remembered.
//
// It believes that server, at its URL over TLS, and of a token nothing but what the server
// says about it. An answer that says less than is required refuses.
//
// A token that is revoked is honoured until its answer is no longer remembered: CacheFor.
// If the server cannot be asked, nobody is let in who is not remembered. StaleFor changes
// that, and then a token that is revoked meanwhile is honoured for so long, too.
//
// It protects the server. However many tokens are made up, few questions are asked at once
// and few each second that are answered with no; what is beyond is refused at once. Tokens
// that have lately been good have room of their own, so the others cannot shut them out.
// Somebody who has not been here lately may have to try again while such a flood lasts:
// rate limits by address belong in front.
package introspection
