// Package challenge asks visitors for work before they get tickets, when many come at once:
// an invisible proof of work, or, for a page without script, a wait.
//
// It protects the issuing of tickets from whoever opens sessions by the thousand. A quiet
// visitor is asked for nothing. Beyond a quiet rate each doubling of the sessions that are
// opened from an address, from the network around it, or by everybody, doubles the work.
//
// It prices nobody out. The most that is asked for by default is about a second of a page's
// script, and a third of a second of one core that runs native code; see
// docs/guards/challenge.md for what a million sessions cost. It tells no people from
// programs, and knows nobody who comes back with another address. A wait costs a program
// nothing but patience: what it buys should be less.
//
// The client is believed in nothing. Challenges are stateless and carry a tag; only that a
// solution has been used is remembered, by a function that the caller brings.
package challenge
