package browser

// Case is a situation and what is expected of it: what vectors/ holds, what a shared link
// carries and what the comparison with real browsers generates.
type Case struct {
	// Name says what the case shows.
	Name string `json:"name,omitempty"`
	Page Page   `json:"page"`
	// Browser is the state in which the browser is found.
	Browser State `json:"browser,omitzero"`
	// Requests are made one after another; each waits for the one before it.
	Requests []Request `json:"requests"`
	// Answers are the server's.
	Answers []Rule `json:"answers,omitempty"`
	// Want has one verdict and one list of requests for each of Requests.
	Want []Want `json:"want,omitempty"`
}

// State is what a browser brings along.
type State struct {
	// Profile is "chromium" (the default), "firefox" or "standard".
	Profile string `json:"profile,omitempty"`
	Cookies []Seed `json:"cookies,omitempty"`
	// BlockThirdPartyCookies is the user's setting.
	BlockThirdPartyCookies bool `json:"block_third_party_cookies,omitempty"`
	// LocalNetworkAllowed is set if the user granted the permission of that name.
	LocalNetworkAllowed bool `json:"local_network_allowed,omitempty"`
	// Addresses says in which address space a host ("api.example" or "api.example:8080")
	// is. One that is not listed is judged by its name: see SpaceOf.
	Addresses map[string]AddressSpace `json:"addresses,omitempty"`
}

// Seed is a cookie that was set earlier.
type Seed struct {
	// URL is where it was set from, and SetCookie the header field's value.
	URL       string `json:"url"`
	SetCookie string `json:"set_cookie"`
	// Age is how long ago that was, in seconds.
	Age int `json:"age,omitempty"`
	// Top is the URL of the tab in which it was set, if that was of another site; it
	// matters to partitioned cookies.
	Top string `json:"top,omitempty"`
}

// Rule is an answer for those requests that it matches. The first that matches counts; a
// request that none matches gets a bare 404.
type Rule struct {
	// URL without fragment; empty matches all.
	URL string `json:"url,omitempty"`
	// On is "preflight", "actual" or, for both, empty.
	On     string `json:"on,omitempty"`
	Answer Answer `json:"answer"`
}

// Want is what one of a case's requests must come to. Its exchanges need no answers.
type Want struct {
	Sent    []Message `json:"sent,omitempty"`
	Verdict Verdict   `json:"verdict"`
}

// Serve answers as the case's rules say.
func (c *Case) Serve(m Message) Answer {
	for _, r := range c.Answers {
		if (r.URL == "" || r.URL == m.URL) && (r.On == "" || (r.On == "preflight") == m.Preflight) {
			return r.Answer
		}
	}
	return Answer{Status: 404}
}
