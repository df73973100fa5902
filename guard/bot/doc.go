// Package bot tells how much a client looks like a program, from what it sends unasked: its
// headers, the first bytes of its connection, and how it goes about.
//
// Each Signal says how many points a request gets, and why. The points of those that are
// enforced are the request's score, and the score decides what becomes of it: nothing, a
// harder challenge, a dearer request, a wait before the refusal, or a refusal at once. A
// signal that is only reported adds nothing, and is told with what it would have added.
//
// It protects from programs that do not take the trouble to look like a browser, and makes
// the others take it. It proves nothing: whoever sends what a browser sends passes, and a
// browser that a program drives is a browser. Each signal's price to an attacker is in
// docs/guards/bot.md.
//
// The client is believed in nothing that would be to its advantage, except that it may say
// which browser it is, and is then held to that.
package bot
