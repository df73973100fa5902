package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/config"
	"github.com/moat-gateway/moat/config/onpaper"
	"github.com/moat-gateway/moat/explain"
	"github.com/moat-gateway/moat/explain/live"
)

// check judges the flags together.
func (f *explainFlags) check(args []string) error {
	sources := 0
	for _, given := range []bool{len(args) > 0, f.curl != "", f.har != ""} {
		if given {
			sources++
		}
	}
	switch {
	case sources == 0:
		return usageError{errors.New("nothing to explain"), "give a URL, a curl command, a fetch call, an error from the console, or --har FILE; moat explain --help has examples"}
	case sources > 1:
		return usageError{errors.New("more than one question: a URL or text, --curl and --har exclude one another"), ""}
	case f.har != "" && (f.config != "" || f.send):
		return usageError{errors.New("--har asks nobody: neither --send nor --config goes with it"), "copy the request as cURL from the network panel, and give it with --curl"}
	case f.send && f.config != "":
		return usageError{errors.New("--config asks no server, so there is nothing to --send"), "leave one of them out"}
	case f.entry >= 0 && f.har == "":
		return usageError{errors.New("--entry is the number of a request in a HAR file"), "give the file with --har"}
	case f.timeout <= 0 || f.timeout > 5*time.Minute:
		return usageError{fmt.Errorf("--timeout: %v: more than 0s, and at most 5m", f.timeout), ""}
	case f.from == "null":
		return usageError{errors.New("--from: null is no page"), "give the page's URL, and --sandboxed"}
	}
	for _, c := range []struct {
		flag, value string
		choices     []string
	}{
		{"api", f.api, apiNames()},
		{"credentials", f.credentials, []string{"omit", "same-origin", "include"}},
		{"mode", f.mode, []string{"cors", "no-cors", "same-origin"}},
		{"crossorigin", f.crossorigin, []string{"anonymous", "use-credentials"}},
		{"browser", f.browser, []string{"chromium", "firefox", "standard"}},
	} {
		if err := oneOf(c.flag, c.value, c.choices); err != nil {
			return err
		}
	}
	for _, t := range f.targets {
		if err := oneOf("for", t, append(targetNames(), "all")); err != nil {
			return err
		}
	}
	if f.from != "" {
		if err := checkURL("--from", f.from, "http", "https"); err != nil {
			return err
		}
	}
	if f.top != "" {
		if err := checkURL("--top", f.top, "http", "https"); err != nil {
			return err
		}
	}
	return f.checkConnection()
}

// checkConnection reads what the flags say about connecting.
func (f *explainFlags) checkConnection() error {
	f.hosts = make(map[string]netip.Addr, len(f.resolve))
	for _, s := range f.resolve {
		// The address may itself have colons.
		host, rest, _ := strings.Cut(s, ":")
		port, address, _ := strings.Cut(rest, ":")
		a, err := netip.ParseAddr(strings.Trim(address, "[]"))
		if err != nil || host == "" || port == "" {
			return usageError{fmt.Errorf("--resolve: %q: not host:port:address", s), "for instance api.example:443:127.0.0.1"}
		}
		f.hosts[strings.ToLower(host)+":"+port] = a
	}
	if f.cacert == "" {
		return nil
	}
	var err error
	if f.roots, err = live.RootCAs(f.cacert); err != nil {
		return hintedError{fmt.Errorf("--cacert: %w", fileError(f.cacert, err)), "give a PEM file of certificates"}
	}
	return nil
}

func oneOf(flag, value string, choices []string) error {
	if value == "" || slices.Contains(choices, value) {
		return nil
	}
	return usageError{fmt.Errorf("--%s: %.60q: not known", flag, value), "one of " + strings.Join(choices, ", ")}
}

// checkURL judges a URL of the command line.
func checkURL(what, raw string, schemes ...string) error {
	const example = "for instance https://app.example/"
	u, err := url.Parse(raw)
	if err != nil {
		if wrong, ok := errors.AsType[*url.Error](err); ok {
			err = wrong.Err
		}
		return usageError{fmt.Errorf("%s: %.200q is no URL: %w", what, raw, err), example}
	}
	switch scheme := strings.ToLower(u.Scheme); {
	case slices.Contains(schemes, scheme) && u.Hostname() != "":
		return nil
	case slices.Contains(schemes, scheme):
		return usageError{fmt.Errorf("%s: %.200q has no host", what, raw), example}
	case scheme == "" || u.Opaque != "": // app.example, or localhost:3000
		return usageError{fmt.Errorf("%s: %.200q has no scheme", what, raw), "write " + schemeFor(raw) + printable(strings.TrimLeft(raw, "/"))}
	}
	return usageError{fmt.Errorf("%s: %.200q: only %s is understood here", what, raw, strings.Join(schemes, ", ")), example}
}

// schemeFor is the one that was most likely left out.
func schemeFor(host string) string {
	if strings.HasPrefix(host, "localhost") || strings.HasPrefix(host, "127.") {
		return "http://"
	}
	return "https://"
}

var (
	looksLikeURL = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*://\S*$`)
	// looksLikeHost is a URL whose scheme was forgotten.
	looksLikeHost = regexp.MustCompile(`^(localhost|[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+)(:[0-9]+)?(/\S*)?$`)
)

// questions finds out what is asked.
func (f *explainFlags) questions(ctx context.Context, cmd *cobra.Command, args []string) ([]asked, error) {
	if f.har != "" {
		return f.recorded(cmd.InOrStdin())
	}
	if len(args) > 1 && args[0] == "curl" {
		args = args[1:] // "moat explain curl -X PUT URL", without quotes: the flags are alike
	}
	if len(args) > 1 {
		return nil, usageError{fmt.Errorf("%d arguments, %s: one is taken", len(args), quotedList(args)), "put a curl command, a fetch call or an error between quotes, or give it with --curl -"}
	}
	if len(args) == 0 || args[0] == "-" {
		s, err := f.readPaste(cmd.InOrStdin(), len(args) == 1)
		if err != nil {
			return nil, err
		}
		return f.paste(ctx, s)
	}
	switch a := strings.TrimSpace(args[0]); {
	case a == "":
		return nil, usageError{errors.New("the argument is empty"), "moat explain --help has examples"}
	case looksLikeHost.MatchString(a):
		return nil, usageError{fmt.Errorf("%.200q has no scheme", a), "write " + schemeFor(a) + a}
	case looksLikeURL.MatchString(a):
		if err := checkURL("the URL", a, "http", "https", "ws", "wss"); err != nil {
			return nil, err
		}
		return f.ask(ctx, f.typed(a))
	case strings.HasPrefix(a, "/") && !strings.ContainsAny(a, " \t\n"):
		return f.ask(ctx, f.typed(a))
	default:
		return f.paste(ctx, a)
	}
}

// typed is the question that the flags ask.
func (f *explainFlags) typed(target string) []explain.Question {
	return []explain.Question{{Request: browser.Request{API: browser.API(f.api), URL: target}}}
}

func quotedList(args []string) string {
	var all []string
	for _, a := range args[:min(3, len(args))] {
		all = append(all, fmt.Sprintf("%.40q", a))
	}
	if len(args) > 3 {
		all = append(all, "…")
	}
	return strings.Join(all, ", ")
}

// maxRead bounds what is read of files and of standard input. Package explain has bounds
// of its own below it, and says so.
const maxRead = 65 << 20

func readInput(stdin io.Reader, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(io.LimitReader(stdin, maxRead))
	}
	file, err := os.Open(name) //nolint:gosec // the user named it.
	if err != nil {
		return nil, fileError(name, err)
	}
	defer file.Close() //nolint:errcheck // it was only read.
	b, err := io.ReadAll(io.LimitReader(file, maxRead))
	if err != nil {
		return nil, fileError(name, err)
	}
	return b, nil
}

// fileError names the file, and no system call.
func fileError(name string, err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s: %w", name, p.Err)
	}
	return err
}

// readPaste is what --curl gives, or standard input.
func (f *explainFlags) readPaste(stdin io.Reader, fromStdin bool) (string, error) {
	from := f.curl
	if fromStdin {
		from = "-"
	}
	if strings.ContainsAny(from, " \t\n(") {
		if _, err := os.Stat(from); err != nil {
			return from, nil // it is no file, so it is the text
		}
	}
	b, err := readInput(stdin, from)
	if err != nil {
		return "", hintedError{fmt.Errorf("--curl: %w", err), "give the command itself between quotes, a file that holds it, or - for standard input"}
	}
	return string(b), nil
}

// paste explains a text of which nobody said what it is.
func (f *explainFlags) paste(ctx context.Context, s string) ([]asked, error) {
	p, err := explain.Paste(s)
	if err != nil {
		if hasAnyPrefix(strings.ToLower(strings.TrimSpace(s)), "http://", "https://") && !strings.Contains(strings.TrimSpace(s), "\n") {
			if uErr := checkURL("the URL", strings.TrimSpace(s), "http", "https"); uErr != nil {
				return nil, uErr
			}
			return nil, usageError{fmt.Errorf("the URL: %.200q holds a blank", s), "write %20 in its place, or give the text around the URL between quotes of its own"}
		}
		return nil, usageError{err, "moat explain --help has examples of what can be given"}
	}
	switch p.Kind {
	case explain.PastedHAR:
		if f.send || f.config != "" {
			return nil, usageError{errors.New("this is a HAR file, and a recording is explained by itself: neither --send nor --config goes with it"), "copy the request as cURL from the network panel"}
		}
		return f.entries(p.Entries)
	case explain.PastedError:
		if f.send || f.config != "" {
			return nil, usageError{errors.New("an error text is explained by itself: neither --send nor --config goes with it"), "give the URL instead, with --from"}
		}
		var all []asked
		for _, d := range p.Diagnoses {
			all = append(all, asked{explain.WithoutSecrets(d.Text), func() (*explain.Explanation, error) { return explain.ExplainDiagnosis(d), nil }})
		}
		return all, nil
	}
	return f.ask(ctx, p.Questions)
}

// policy reads --config; it is nil without.
func (f *explainFlags) policy() (*onpaper.Policy, error) {
	if f.config == "" {
		return nil, nil
	}
	loaded, err := config.Load(f.config)
	if err != nil {
		return nil, err
	}
	return onpaper.New(loaded)
}

// ask lets the flags have their say about the questions, and a server or a policy answer.
func (f *explainFlags) ask(ctx context.Context, questions []explain.Question) ([]asked, error) {
	policy, err := f.policy()
	if err != nil {
		return nil, err
	}
	var all []asked
	for _, q := range questions {
		if policy != nil && strings.HasPrefix(q.Request.URL, "/") {
			q.Request.URL = policy.Origin() + q.Request.URL
		}
		if err := f.apply(&q); err != nil {
			return nil, err
		}
		setting := explain.Setting{
			Profile: f.browser, Now: time.Now(), BlockThirdPartyCookies: f.blockThirdParty, LocalNetworkAllowed: f.localNet,
		}
		run := func() (*explain.Explanation, error) { return f.askServer(ctx, setting, q) }
		if policy != nil {
			run = func() (*explain.Explanation, error) { return setting.ExplainPolicy(q, policy.Decide) }
		}
		all = append(all, asked{explain.WithoutSecrets(strings.TrimSpace(q.Request.Method + " " + q.Request.URL)), run})
	}
	return all, nil
}

// apply lets the flags change a question: what they say replaces what was pasted.
func (f *explainFlags) apply(q *explain.Question) error {
	r := &q.Request
	if f.changed("api") {
		r.API = browser.API(f.api)
	}
	if f.method != "" {
		r.Method = f.method
	}
	if f.changed("data") {
		kind := "text"
		if r.API == browser.Form {
			kind = "urlencoded"
		}
		r.Body = &browser.Body{Kind: kind, Text: f.data}
		if f.method == "" && (r.Method == "" || r.Method == "GET") {
			r.Method = "POST"
		}
	}
	if f.from != "" {
		q.Page.URL = f.from
	}
	if err := f.applyHeaders(q); err != nil {
		return err
	}
	if f.mode != "" {
		r.Mode = f.mode
	}
	if f.crossorigin != "" {
		r.CrossOrigin = f.crossorigin
	}
	if f.credentials != "" {
		if r.API == browser.XHR || r.API == browser.EventSource {
			r.WithCredentials = f.credentials == "include"
		} else {
			r.Credentials = f.credentials
		}
	}
	if q.Page.URL == "" && !looksLikeURL.MatchString(r.URL) {
		return usageError{fmt.Errorf("%.200q is relative, and there is no page to begin from", r.URL), "write the whole URL, or name the page with --from"}
	}
	if f.top != "" {
		q.Page.Ancestors = []string{f.top}
	}
	if f.sandboxed {
		q.Page.Sandboxed = true
	}
	if f.csp != "" {
		q.Page.CSP = f.csp
	}
	return f.applyCookies(q)
}

func (f *explainFlags) applyHeaders(q *explain.Question) error {
	for _, h := range f.headers {
		name, value, ok := strings.Cut(h, ":")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		switch {
		case !ok || name == "":
			return usageError{errors.New(`--header: not "Name: value"`), `for instance -H "Content-Type: application/json"`}
		case strings.ContainsAny(value, "\r\n\x00"):
			return usageError{fmt.Errorf("--header: the value of %.100q has a line break or a NUL, which no header field can have", name), "remove it"}
		case strings.EqualFold(name, "Cookie"):
			return usageError{errors.New("--header: script cannot set Cookie"), `say which cookies the browser has: --cookie "name=value; SameSite=Lax" --credentials include`}
		case strings.EqualFold(name, "Origin") && q.Page.URL == "" && value != "null":
			if err := checkURL("--header: Origin", value, "http", "https"); err != nil {
				return err
			}
			q.Page.URL = value
			q.Notes = append(q.Notes, "Script cannot set Origin. It was taken for the page that makes the request, as --from is.")
			continue
		}
		q.Request.Header = append(slices.DeleteFunc(slices.Clone(q.Request.Header), func(old browser.Field) bool {
			return strings.EqualFold(old.Name, name)
		}), browser.Field{Name: name, Value: value})
	}
	return nil
}

func (f *explainFlags) applyCookies(q *explain.Question) error {
	for _, c := range f.cookies {
		name, _, ok := strings.Cut(c, "=")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return usageError{errors.New("--cookie: not name=value"), `for instance --cookie "session=1; SameSite=Lax"`}
		}
		u, err := resolved(q.Page.URL, q.Request.URL)
		if err != nil {
			return usageError{fmt.Errorf("%.200q is no URL", q.Request.URL), ""}
		}
		q.Cookies = append(slices.DeleteFunc(slices.Clone(q.Cookies), func(s browser.Seed) bool {
			old, _, _ := strings.Cut(s.SetCookie, "=")
			return strings.TrimSpace(old) == name
		}), browser.Seed{URL: u.String(), SetCookie: c})
	}
	return nil
}

// resolved is the URL that a page asks for.
func resolved(page, target string) (*url.URL, error) {
	base, err := url.Parse(page)
	if err != nil {
		return nil, err
	}
	return base.Parse(strings.TrimSpace(target))
}

const whereHAR = "export one from the network panel of the browser's developer tools"

// recorded reads a HAR file.
func (f *explainFlags) recorded(stdin io.Reader) ([]asked, error) {
	b, err := readInput(stdin, f.har)
	if err != nil {
		return nil, hintedError{fmt.Errorf("--har: %w", err), whereHAR}
	}
	entries, err := explain.FromHAR(b)
	if err != nil {
		return nil, hintedError{fmt.Errorf("%s: %w", f.har, err), whereHAR}
	}
	return f.entries(entries)
}

// entries are those requests of a HAR file that go to another origin, or the one that was
// chosen.
func (f *explainFlags) entries(all []explain.Entry) ([]asked, error) {
	f.brief = f.entry < 0 && !f.verbose
	var chosen []asked
	for i := range all {
		e := &all[i]
		if e.Page.URL == "" && f.from != "" {
			e.Page.URL = f.from
			e.CrossOrigin = !explain.SameOrigin(f.from, e.Request.URL)
		}
		if f.entry >= 0 && e.Index != f.entry || f.entry < 0 && !e.CrossOrigin {
			continue
		}
		chosen = append(chosen, asked{fmt.Sprintf("#%d %s %s", e.Index, e.Request.Method, e.Request.URL), func() (*explain.Explanation, error) {
			return explain.ExplainEntry(e, time.Now(), f.browser)
		}})
	}
	switch {
	case len(chosen) > 0:
		return chosen, nil
	case f.entry >= 0:
		return nil, usageError{fmt.Errorf("--entry: %d: no request stands there by itself", f.entry), "numbers count the file's entries from 0; preflights and redirects belong to the request that caused them"}
	}
	return nil, hintedError{
		fmt.Errorf("none of the file's %d requests is known to go to another origin than its page's, and CORS is about no others", len(all)),
		"if the file does not say which page made them, name it with --from",
	}
}
