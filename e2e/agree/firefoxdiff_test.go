package agree

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/moat-gateway/moat/browser"
)

// firefoxReasons are Firefox's texts, as patterns, by its names of them.
var firefoxReasons = func() map[string]*regexp.Regexp {
	all := map[string]*regexp.Regexp{}
	blank := regexp.MustCompile(`\b(URL|VALUE|METHOD|HEADER|STATUS)\b`)
	for _, e := range browser.CORSErrors() {
		info := e.Info()
		line, _, _ := strings.Cut(info.FirefoxText, "\n")
		if info.Firefox != "" {
			all[info.Firefox] = regexp.MustCompile("^" + blank.ReplaceAllString(regexp.QuoteMeta(line), "(?s:.*)") + "$")
		}
	}
	return all
}()

const (
	corsBlocked   = "Cross-Origin Request Blocked"
	didNotSucceed = "CORSDidNotSucceed"
)

// firefoxNames are Firefox's names of what its console says of CORS; a text that has none
// stands for itself.
func firefoxNames(console []string) []string {
	var names []string
	for _, text := range console {
		if !strings.HasPrefix(text, corsBlocked) {
			continue
		}
		name := text
		for n, pattern := range firefoxReasons {
			if pattern.MatchString(text) {
				name = n
			}
		}
		names = append(names, name)
	}
	return names
}

// difference is one thing in which model and Firefox do not agree.
type difference struct {
	kind, text string
	// request is the one that it is about; -1 if it is about all.
	request int
	// named are the names in the console that are left for the request.
	named []string
}

// firefoxDeviations are where the model is known not to say what Firefox does, and why
// that is left so.
var firefoxDeviations = []struct {
	why   string
	holds func(p *played, traces []browser.Trace, d difference) bool
}{
	{
		"A redirect that may not be followed (to http, to data:, to a URL with a password), and a script of a wrong type, " +
			"Firefox refuses before it holds the answer against CORS. The model has the standard's order. Nothing but the name depends on it.",
		func(p *played, traces []browser.Trace, d difference) bool {
			if d.kind != "names" || d.request < 0 || len(traces[d.request].Exchanges) == 0 || len(d.named) > 0 && d.named[0] != didNotSucceed {
				return false
			}
			last := traces[d.request].Exchanges[len(traces[d.request].Exchanges)-1]
			api := p.Requests[d.request].API
			return last.Answer.Header.Has("Location") || api == browser.Script || api == browser.ModuleScript
		},
	},
	{
		"An image of the page's own host that is asked for over https instead carries Origin, because its http URL would have been another origin's.",
		func(p *played, _ []browser.Trace, d difference) bool {
			r := p.Requests[0]
			return d.kind == "requests" && r.API == browser.Image && r.CrossOrigin != "" && strings.HasPrefix(r.URL, "http:") &&
				strings.HasPrefix(p.Page.URL, "https:")
		},
	},
}

// firefoxPlay is what became of a case in Firefox.
type firefoxPlay struct {
	arrived []browser.Message
	saw     []saw
	console []string
}

// compareFirefox holds what Firefox did against the model.
func compareFirefox(p *played, traces []browser.Trace, got firefoxPlay) []string {
	all := differentRequests(p, traces, got.arrived)
	for i, t := range traces {
		if i < len(got.saw) {
			all = append(all, differentSaw(p.Requests[i], i, t.Verdict, got)...)
		}
	}
	all = append(all, differentNames(traces, firefoxNames(got.console))...)
	var diff []string
	for _, d := range all {
		known := false
		for _, k := range firefoxDeviations {
			known = known || k.holds(p, traces, d)
		}
		if !known {
			diff = append(diff, d.text)
		}
	}
	if len(diff) > 0 && len(got.console) > 0 {
		diff = append(diff, "the console says: "+strings.Join(got.console, "\n  "))
	}
	return diff
}

func differentRequests(p *played, traces []browser.Trace, arrived []browser.Message) []difference {
	// Cookies for all paths of a host also reach the other cases.
	own := func(cookie string) bool {
		name, _, _ := strings.Cut(cookie, "=")
		return !strings.HasPrefix(name, "__Host-") || slices.ContainsFunc(p.Browser.Cookies, func(s browser.Seed) bool { return strings.HasPrefix(s.SetCookie, name+"=") })
	}
	var want, got []string
	for _, t := range traces {
		for _, x := range t.Exchanges {
			if !x.FromCache {
				want = append(want, sign(x.Message, own))
			}
		}
	}
	for _, m := range arrived {
		got = append(got, sign(m, own))
	}
	if slices.Equal(want, got) {
		return nil
	}
	return []difference{{"requests", fmt.Sprintf("requests differ:\n  model:   %s\n  browser: %s", strings.Join(want, "\n    "), strings.Join(got, "\n    ")), -1, nil}}
}

func differentSaw(r browser.Request, i int, v browser.Verdict, got firefoxPlay) []difference {
	s := got.saw[i]
	switch {
	case leaves(browser.Case{Requests: []browser.Request{r}}):
		return nil // the page is gone
	case r.API == browser.Font:
		// The answers are no fonts: what counts is whether the bytes were handed over.
		s.Script = "load"
		if mentioned(got.console, "downloadable font: download failed") || v.Outcome == browser.Blocked && len(got.console) > 0 {
			s.Script = "error"
		}
	}
	if s.Script != v.Script {
		return []difference{{"script", fmt.Sprintf("script saw %q; the model says %q", s.Script, v.Script), i, nil}}
	}
	// How the bytes were cut up is the test server's business.
	s.Headers = slices.DeleteFunc(s.Headers, func(n string) bool { return n == "transfer-encoding" })
	scripted := r.API == browser.Fetch || r.API == browser.XHR
	if scripted && v.Outcome == browser.Readable && v.Type != "basic" && !slices.Equal(s.Headers, v.Headers) {
		return []difference{{"headers", fmt.Sprintf("headers readable: %v; the model says %v", s.Headers, v.Headers), i, nil}}
	}
	return nil
}

// differentNames holds the names in the console against the verdicts, one after another.
func differentNames(traces []browser.Trace, names []string) []difference {
	for i, t := range traces {
		want := t.Verdict.Firefox
		if want == "" {
			continue
		}
		if len(names) == 0 || names[0] != want {
			return []difference{{"names", fmt.Sprintf("the console names %v; the model says %s (%s)", names, want, t.Verdict.CORS), i, names}}
		}
		names = names[1:]
		// What was refused fails once more as a request, a redirected preflight as a preflight.
		for len(names) > 0 && (names[0] == didNotSucceed || names[0] == "CORSPreflightDidNotSucceed" && want == "CORSExternalRedirectNotAllowed") {
			names = names[1:]
		}
	}
	if len(names) > 0 {
		return []difference{{"names", fmt.Sprintf("the console names %v; the model says nothing", names), len(traces) - 1, names}}
	}
	return nil
}
