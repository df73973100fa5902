package bot

import "strings"

// Signs are what the page's own script has seen of its browser, as they came with the request
// for a ticket: the bits of docs/ticket-format.md. Others mean nothing. Whoever reads the script
// can leave them out.
type Signs uint16

// The signs.
const (
	// Webdriver: navigator.webdriver is true, as the WebDriver standard asks of a browser that a
	// program drives.
	Webdriver Signs = 1 << iota
	// Headless: the browser calls itself headless, in its user agent or its brands.
	Headless
	// Patched: somebody has replaced or removed navigator.webdriver.
	Patched
	// Tool: the page has a global name that an automation tool puts there.
	Tool
)

// signs has the name of each sign, and its points.
var signs = []struct {
	sign   Signs
	name   string
	points int
}{
	{Webdriver, "webdriver", 60},
	{Headless, "headless", 40},
	{Patched, "patched", 40},
	{Tool, "tool", 60},
}

// String lists their names.
func (s Signs) String() string {
	var names []string
	for _, one := range signs {
		if s&one.sign != 0 {
			names = append(names, one.name)
		}
	}
	return strings.Join(names, " ")
}

// found are the points of all signs together.
func (s Signs) found() (f found) {
	if s == 0 {
		return f
	}
	for _, one := range signs {
		if s&one.sign != 0 {
			f.add(one.points, one.name)
		}
	}
	return f
}
