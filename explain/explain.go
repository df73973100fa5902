// Package explain turns what people have at hand (a curl command, a HAR file, an error
// from a console) into questions to the browser model, and the model's traces into
// answers that people can act on. It does no I/O: the live server is explain/live's.
package explain

import "github.com/moat-gateway/moat/browser"

// Question is a request of a page, as somebody asks about it.
type Question struct {
	Page    browser.Page    `json:"page"`
	Request browser.Request `json:"request"`
	// Cookies are those that are known to be in the jar.
	Cookies []browser.Seed `json:"cookies,omitempty"`
	// Notes say what was assumed or left out, for the reader.
	Notes []string `json:"notes,omitempty"`
}
