// Package agree holds the browser model against real browsers: the same cases are played
// in the model and in a browser, against the same scripted servers, and everything that
// can be observed must be equal.
//
//	make verify-browser
package agree
