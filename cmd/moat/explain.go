package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/spf13/cobra"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/explain"
	"github.com/moat-gateway/moat/explain/live"
	"github.com/moat-gateway/moat/explain/text"
)

// exitCode ends the program with a code of its own, and without a message: the output has
// said it all.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// The exit codes of moat explain, beside 0 for allowed and the usual 1 and 2.
const (
	exitBlocked exitCode = 3
	exitRefused exitCode = 4
	exitUnknown exitCode = 5
)

// explainFlags are those of moat explain.
type explainFlags struct {
	// The page, its browser, and the request that it makes.
	from, top, csp            string
	sandboxed                 bool
	browser                   string
	blockThirdParty, localNet bool
	api, method, data         string
	headers, cookies          []string
	credentials, mode         string
	crossorigin               string
	// How a server is asked.
	send, allowPrivate, insecure bool
	timeout                      time.Duration
	cacert                       string
	resolve                      []string
	// Where else the question, or the answer, comes from.
	curl, har, config string
	entry             int
	// The output.
	verbose, json, noColor bool
	targets                []string

	// What is made of them.
	changed func(flag string) bool
	brief   bool // each explanation gets one line
	hosts   map[string]netip.Addr
	roots   *x509.CertPool
}

const explainLong = `Does what a browser would do with a request of a page, says what becomes of it and
why, whether the backend executed it all the same, and what would mend it.

Preflights are sent to the server; the request itself only with --send, because the
backend executes it. The question may also be what you have at hand:

  moat explain --from https://app.example -X PUT https://api.example/v1/items
  moat explain --from https://app.example "fetch('https://api.example/', {credentials: 'include'})"
  moat explain --curl request.txt        # "Copy as cURL" or "Copy as fetch"; - is standard input
  moat explain --har session.har         # each cross-origin request in it; nobody is asked
  moat explain "Access to fetch at '…' from origin '…' has been blocked by CORS policy: …"
  moat explain --config moat.yaml --from https://app.example /v1/items    # what would moat decide?

Exit codes: 0 allowed, 3 blocked by the browser, 4 refused by the server, 5 cannot be
told, 1 failure, 2 wrong command line. Of several requests, the first of 3, 4 and 5 that
applies to any.`

func explainCommand() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain [URL | TEXT | -]",
		Short: "Explain what a browser makes of a request, and mend it",
		Long:  explainLong,
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.changed = cmd.Flags().Changed
			return withoutSecrets(f.run(cmd, args))
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.from, "from", "", "the `URL` or origin of the page that makes the request")
	flags.StringVarP(&f.method, "method", "X", "", "the `method` (default GET, or POST with --data)")
	flags.StringArrayVarP(&f.headers, "header", "H", nil, "a header that script sets, as `\"Name: value\"`; repeatable")
	flags.StringVarP(&f.data, "data", "d", "", "the body, as a `text` given to fetch: text/plain unless -H says otherwise")
	flags.StringVar(&f.credentials, "credentials", "", "whether cookies travel: `omit`, same-origin or include")
	flags.StringArrayVar(&f.cookies, "cookie", nil, "a cookie that the API had set, as `\"name=value; SameSite=Lax\"`; repeatable")
	flags.StringVar(&f.api, "api", "fetch", "`what` makes the request: "+strings.Join(apiNames(), ", "))
	flags.StringVar(&f.mode, "mode", "", "the `mode` of fetch: cors, no-cors or same-origin")
	flags.StringVar(&f.crossorigin, "crossorigin", "", "the `attribute` of img, script and stylesheet: anonymous or use-credentials")
	flags.StringVar(&f.top, "top", "", "the `URL` of the tab, if the page is framed by another one")
	flags.BoolVar(&f.sandboxed, "sandboxed", false, "the page is sandboxed without allow-same-origin: its origin is null")
	flags.StringVar(&f.csp, "csp", "", "the page's own Content-Security-`Policy`")
	flags.StringVar(&f.browser, "browser", "chromium", "which `browser`: chromium, firefox, or standard for the letter of it")
	flags.BoolVar(&f.blockThirdParty, "block-third-party-cookies", false, "the user blocks third-party cookies")
	flags.BoolVar(&f.localNet, "allow-local-network", false, "the user allowed the page to reach the local network")

	flags.BoolVar(&f.send, "send", false, "make the request itself too: the backend executes it")
	flags.BoolVar(&f.allowPrivate, "allow-private", false, "follow redirects to hosts with private addresses, too")
	flags.DurationVar(&f.timeout, "timeout", live.DefaultTimeout, "how long to wait for each answer")
	flags.StringVar(&f.cacert, "cacert", "", "a `file` of certificates to trust in place of the system's")
	flags.BoolVarP(&f.insecure, "insecure", "k", false, "accept any certificate, which no browser does")
	flags.StringArrayVar(&f.resolve, "resolve", nil, "connect to an address of your choice, as `host:port:address`; repeatable")

	flags.StringVar(&f.curl, "curl", "", "a curl command or fetch call: the `text` itself, a file, or - for standard input")
	flags.StringVar(&f.har, "har", "", "a HAR `file`, or - for standard input")
	flags.IntVar(&f.entry, "entry", -1, "explain only the request with this `number` in the HAR file")
	flags.StringVar(&f.config, "config", "", "a moat.yaml `file` to ask in place of a server: what would moat decide?")

	flags.StringSliceVar(&f.targets, "for", nil, "write the change down for a `server`: "+strings.Join(targetNames(), ", ")+", or all")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "explain each request of the HAR file in full")
	flags.BoolVar(&f.json, "json", false, "print JSON; moat schema explain describes it")
	flags.BoolVar(&f.noColor, "no-color", false, "no colour; the environment variable NO_COLOR does the same")
	return cmd
}

func apiNames() []string {
	var names []string
	for _, a := range []browser.API{
		browser.Fetch, browser.XHR, browser.Form, browser.Link, browser.Image, browser.Script, browser.ModuleScript, browser.Stylesheet,
		browser.Font, browser.EventSource, browser.Beacon, browser.Ping, browser.WebSocket, browser.Frame,
	} {
		names = append(names, string(a))
	}
	return names
}

func targetNames() []string {
	var names []string
	for _, t := range explain.Targets() {
		names = append(names, string(t))
	}
	return names
}

// asked is a question, and what explains it.
type asked struct {
	name    string
	explain func() (*explain.Explanation, error)
}

func (f *explainFlags) run(cmd *cobra.Command, args []string) error {
	if err := f.check(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	all, err := f.questions(ctx, cmd, args)
	if err != nil {
		return err
	}
	explanations := make([]*explain.Explanation, 0, len(all))
	for _, a := range all {
		e, aErr := a.explain()
		switch {
		case ctx.Err() != nil:
			return errFailed("interrupted")
		case errors.Is(aErr, explain.ErrNoPage):
			return usageError{aErr, "name it with --from https://app.example; its origin is what CORS goes by"}
		case aErr != nil:
			return usageError{aErr, "moat explain --help has examples"}
		}
		explanations = append(explanations, e)
	}
	if err := f.print(cmd.OutOrStdout(), all, explanations); err != nil {
		return err
	}
	f.hint(cmd.ErrOrStderr(), explanations)
	return codeOf(explanations)
}

// askServer asks the live server.
func (f *explainFlags) askServer(ctx context.Context, setting explain.Setting, q explain.Question) (*explain.Explanation, error) {
	o := live.Options{
		Send: f.send, AllowPrivate: f.allowPrivate, Timeout: f.timeout,
		Resolve: f.hosts, RootCAs: f.roots, DangerouslySkipVerify: f.insecure,
	}
	hostport := ""
	if u, err := resolved(q.Page.URL, q.Request.URL); err == nil {
		o.Named, hostport = []string{u.Hostname()}, u.Host
	}
	client := live.New(ctx, o)
	defer client.Close()
	// The page's own host is looked up only if it matters: if the target is not public.
	if hostport != "" && client.Space(hostport) != browser.Public {
		setting.Space = client.Space
	}
	e, err := setting.Explain(q, client.Server)
	if err != nil {
		return nil, err
	}
	e.Notes = append(e.Notes, client.Notes()...)
	return e, nil
}

// codeOf is the exit code: the first that applies to any of them.
func codeOf(all []*explain.Explanation) error {
	for _, c := range []struct {
		outcome explain.Outcome
		code    exitCode
	}{{explain.Blocked, exitBlocked}, {explain.Refused, exitRefused}, {explain.Unknown, exitUnknown}} {
		if slices.ContainsFunc(all, func(e *explain.Explanation) bool { return e.Outcome == c.outcome }) {
			return c.code
		}
	}
	return nil
}

func (f *explainFlags) print(out io.Writer, all []asked, explanations []*explain.Explanation) error {
	if f.json {
		var b strings.Builder
		enc := json.NewEncoder(&b)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		if err := enc.Encode(explain.Report{Explanations: explanations}); err != nil {
			return err
		}
		_, err := io.WriteString(out, escaped(b.String()))
		return err
	}
	o := textOptions(out, f.noColor)
	for _, t := range f.targets {
		if t == "all" {
			o.For = explain.Targets()
			break
		}
		o.For = append(o.For, explain.Target(t))
	}
	for i, e := range explanations {
		if f.brief {
			if err := text.Line(out, all[i].name, e, o); err != nil {
				return err
			}
			continue
		}
		if len(all) > 1 {
			if i > 0 {
				fmt.Fprintln(out)
			}
			if err := text.Heading(out, fmt.Sprintf("%d of %d: %s", i+1, len(all), all[i].name), o); err != nil {
				return err
			}
		}
		if err := text.Write(out, e, o); err != nil {
			return err
		}
	}
	if f.brief {
		return text.Count(out, explanations, o)
	}
	return nil
}

// escaped writes JSON's characters that could steer a terminal as \u…: encoding/json leaves
// those above U+007E as they are. Outside of strings, JSON has none of them.
func escaped(s string) string {
	if strings.IndexFunc(s, steers) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if !steers(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}

func steers(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }

// withoutSecrets is an error that may quote what the user gave: URLs with tokens in them,
// what strangers wrote.
func withoutSecrets(err error) error {
	clean := func(s string) string { return printable(explain.WithoutSecrets(s)) }
	if e, ok := errors.AsType[usageError](err); ok {
		return usageError{errors.New(clean(e.Error())), clean(e.hint)}
	}
	if e, ok := errors.AsType[hintedError](err); ok {
		return hintedError{errors.New(clean(e.Error())), clean(e.hint)}
	}
	return err
}

// hint says, beside the output, what would tell more.
func (f *explainFlags) hint(w io.Writer, all []*explain.Explanation) {
	has := func(which func(*explain.Explanation) bool) bool { return slices.ContainsFunc(all, which) }
	hint := func(s string) { fmt.Fprintln(w, "moat: hint: "+s) }
	switch {
	case f.brief && len(all) > 0:
		hint(fmt.Sprintf("--entry %d explains that request in full, --verbose all of them", *all[0].Entry))
	case has(func(e *explain.Explanation) bool {
		return e.Pending != nil && strings.Contains(e.Pending.Why, "private address")
	}):
		hint("--allow-private follows it there")
	case !f.send && has(func(e *explain.Explanation) bool {
		return e.Source == explain.FromServer && e.Pending != nil && !e.Pending.Preflight
	}):
		hint("--send makes the request itself and judges its answer; the backend executes it")
	case !f.localNet && has(func(e *explain.Explanation) bool {
		return e.Source == explain.FromServer && e.Trace.Verdict.CORS == browser.LocalNetworkAccessPermissionDenied
	}):
		hint("--allow-local-network asks as if the user had allowed it; --resolve host:port:127.0.0.1 asks a server of your own under its public name")
	}
}
