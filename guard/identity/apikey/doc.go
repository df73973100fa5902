// Package apikey identifies programs by keys that the operator hands out (moat key).
//
// A key is moat_ID_SECRET and six check digits. What is stored of it tells nobody the key:
// the id, which is public, and the SHA-256 of the whole text. The secret is 190 random bits,
// so there is nothing to guess that a slow hash would make dearer, and a slow hash would let
// anybody who sends junk spend the gate's time.
//
// It does not protect from somebody who has got hold of a key: whoever sends it is its
// owner, until it expires or is revoked. It belongs in programs on servers, never in a page:
// a browser shows it to whoever looks.
//
// It believes the operator's list of keys, see Set, and nothing that a request says.
package apikey
