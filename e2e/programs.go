// Package e2e proves moat against the programs that it meets in the world: a real
// browser, real clients and real servers. The programs are found in PATH, and `make
// setup` installs those that are missing; a test whose program is missing fails, it is
// never skipped.
package e2e

import "github.com/moat-gateway/moat/store/valkey/valkeytest"

// Program is a program outside this repository that the end-to-end tests execute.
type Program struct {
	// Name is what the tests call it.
	Name string
	// FoundAs are the executables that will do, the preferred one first.
	FoundAs []string
}

// Programs are all of them. scripts/setup.sh holds the packages that they come in.
var Programs = []Program{
	{Name: "chromium", FoundAs: []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"}},
	{Name: "firefox", FoundAs: []string{"firefox-esr", "firefox"}},
	{Name: "node", FoundAs: []string{"node"}},
	{Name: "npm", FoundAs: []string{"npm"}},
	{Name: "curl", FoundAs: []string{"curl"}},
	{Name: "nginx", FoundAs: []string{"nginx"}},
	{Name: "caddy", FoundAs: []string{"caddy"}},
	{Name: "valkey", FoundAs: valkeytest.FoundAs},
	{Name: "xvfb", FoundAs: []string{"Xvfb"}},
}
