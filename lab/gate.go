package lab

import (
	"context"
	_ "embed"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/moat-gateway/moat/config"
	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
)

// What a moat.yaml of the lab may take. Its writer may be anybody, and there is one for each
// visitor.
const (
	maxConfig   = 32 << 10
	maxPieces   = 64 // routes, upstreams, policies and so on
	tableMemory = 64 << 10
)

// backendName is what the API is called in a moat.yaml: it stands for the visitor's own,
// wherever that listens.
const backendName = "backend.internal:8080"

// defaultGate is in force where neither the reader nor the lesson says another.
//
//go:embed lessons/gate.yaml
var defaultGate string

// fillConfig puts origins in the place of their names in a moat.yaml.
func (l *Lab) fillConfig(v *visitor, text string) string {
	return l.o.Names.fill(text, v.id, "{backend}", "http://"+backendName)
}

// compile reads a moat.yaml. The error is of type config.Faults if a line of it is at fault.
func (l *Lab) compile(v *visitor, text string) (*config.Loaded, error) {
	text = l.fillConfig(v, text)
	if err := bounded(text); err != nil {
		return nil, err
	}
	loaded, err := config.Parse("moat.yaml", []byte(text), config.Options{Getenv: v.keys.env, ReadFile: v.keys.file})
	if err != nil {
		return nil, err
	}
	if err := confine(loaded); err != nil {
		return nil, err
	}
	return loaded, nil
}

// confine refuses what would reach out of the lab, and sets down what would take much of its
// memory. What means nothing here is worth a warning.
func confine(loaded *config.Loaded) error {
	var faults config.Faults
	where := func(route, field string) config.Fault {
		p := loaded.Where(route, field)
		return config.Fault{File: "moat.yaml", Line: max(p.Line, 1), Col: max(p.Col, 1), What: field}
	}
	refuse := func(field, reason string) {
		f := where("", field)
		f.Reason = "in the lab " + reason
		faults = append(faults, f)
	}
	c := &loaded.Gateway
	for name, u := range c.Upstreams {
		if u.URL.Host != backendName || u.URL.Scheme != "http" {
			refuse("upstreams."+name+".url", "every upstream is {backend}, http://"+backendName)
		}
		if u.Credential.OAuth.TokenURL != "" {
			refuse("upstreams."+name+".credential.oauth", "no authorization server can be asked; write bearer")
		}
	}
	if manyPieces(c) {
		refuse("routes", tooManyPieces)
	}
	if loaded.Valkey != nil {
		refuse("store.valkey", "there is no Valkey; leave it out")
	}
	if c.Callers != nil {
		for _, issuer := range c.Callers.JWT {
			if issuer.Discover || issuer.JWKSURL != "" {
				refuse("auth."+issuer.Source, "no issuer can be asked for its keys; write jwks_file: jwks.json, or secrets: ${env:JWT_SECRET}")
			}
		}
		for _, p := range c.Callers.Introspection {
			refuse("auth."+p.Source, "no authorization server can be asked; write jwt or api_key")
		}
		for _, p := range c.Callers.Logins {
			refuse("auth."+p.Source, "there is no OpenID provider; write jwt or api_key")
		}
	}
	for _, field := range []string{"listen", "admin", "limits", "shutdown", "store.memory", "tickets.memory"} {
		if loaded.Where("", field).Line > 0 {
			f := where("", field)
			f.Reason = "has no effect in the lab, which sees to it itself"
			loaded.Warnings = append(loaded.Warnings, f)
		}
	}
	c.LimitMemory = tableMemory
	if c.Tickets != nil {
		c.Tickets.Memory = tableMemory
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

// openGate makes a gate in front of the visitor's API.
func (v *visitor) openGate(loaded *config.Loaded) (*gateway.Gateway, error) {
	backend, err := v.backend.open(v.behindGate())
	if err != nil {
		return nil, err
	}
	c := loaded.Gateway
	c.Observe = v.decided
	c.Upstreams = maps.Clone(c.Upstreams)
	for name, u := range c.Upstreams {
		to := *u.URL
		to.Host = backend
		u.URL = &to
		c.Upstreams[name] = u
	}
	c.Routes = slices.Clone(c.Routes)
	for i := range c.Routes {
		if f := c.Routes[i].Fetch; f != nil {
			confined := *f
			v.confineFetch(&confined.Policy)
			c.Routes[i].Fetch = &confined
		}
	}
	if c.Callers != nil {
		callers := *c.Callers
		callers.Keys = slices.Clone(callers.Keys)
		for i := range callers.Keys {
			callers.Keys[i].Set = v.keys.apiKeys
		}
		if len(callers.CSRF.Secrets) == 0 {
			callers.CSRF.Secrets = v.keys.own("CSRF")
		}
		c.Callers = &callers
	}
	if t := c.Tickets; t != nil && len(t.Policy.Secrets) == 0 {
		own := *t
		own.Policy.Secrets = v.keys.own("tickets")
		c.Tickets = &own
	}
	return gateway.New(c, nil)
}

// behindGate is the API as the gate forwards to it. A request is known by its number, so that
// what the API did stands beside what arrived at the gate.
func (v *visitor) behindGate() http.Handler {
	api := v.api()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := parseCall(r.Header.Get(callHeader))
		if err != nil {
			http.Error(w, "Only the gate comes here.", http.StatusForbidden)
			return
		}
		r.Header.Del(callHeader)
		api.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callKey{}, c)))
	})
}

const callHeader = "Lab-Call"

// serveGate is moat, as it is configured.
func (l *Lab) serveGate(w http.ResponseWriter, r *http.Request, v *visitor) {
	g, err := l.gateOf(v)
	if err != nil {
		http.Error(w, "This gate cannot be started: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	r.Header.Set(callHeader, callOf(r).String())
	g.ServeHTTP(w, r)
}

// decided notes what moat has decided about a request, before it happens.
func (v *visitor) decided(r *http.Request, verdict gateway.Verdict) {
	c := callOf(r)
	e := Event{Kind: eventGate, Outcome: "allow"}
	for _, step := range verdict.Trail {
		e.Trail = append(e.Trail, Step{Guard: step.Guard.String(), Mode: step.Mode.String(), Reason: step.Decision.Reason.String()})
	}
	d := verdict.Decision
	switch d.Outcome {
	case guard.Deny:
		e.Outcome, e.Fix = "deny", d.Reason.Fix()
	case guard.Answer:
		e.Outcome = "preflight"
	case guard.Amend:
		if v.ledger.amended(c) {
			return // once is enough for all cookies of an answer
		}
		e.Outcome = "amend"
	case guard.Allow:
		// What was only reported passes, and is worth a word.
		if len(verdict.Reports) == 0 {
			v.ledger.note(c, e)
			return
		}
		d = verdict.Reports[0]
		e.Fix = d.Reason.Fix()
	}
	e.Reason, e.Text = d.Reason.String(), d.Reason.Cause()
	if x := d.Evidence; x.Where != "" {
		e.Text += fmt.Sprintf(" %s: %q, where moat wants %s.", x.Where, cut(x.Got), x.Want)
	}
	v.ledger.note(c, e)
}

// gateFor puts the moat.yaml of a lesson in force: the reader's own, if one of his was
// accepted, or the lesson's solution, or the default. With anew the gate has forgotten what it
// counted, so that a lesson's run comes out the same every time.
func (l *Lab) gateFor(v *visitor, lesson string, anew bool) error {
	v.mu.Lock()
	text, ok := v.accepted[lesson]
	v.mu.Unlock()
	if !ok {
		text = defaultGate
		if found := l.lesson(lesson); found != nil && found.Mend != nil {
			text = found.Mend.Solution
		}
	}
	_, err := l.configure(v, text, anew)
	return err
}

// configure puts a moat.yaml in force. Faults leave the one before in place.
func (l *Lab) configure(v *visitor, text string, anew bool) (*config.Loaded, error) {
	v.configuring.Lock()
	defer v.configuring.Unlock()
	if f := v.inForce.Load(); f != nil && f.text == text {
		// A page goes on with the tickets that it has, and what they were used for must not be
		// forgotten.
		if !anew || f.loaded.Gateway.Tickets != nil {
			return f.loaded, nil
		}
	}
	loaded, err := l.compile(v, text)
	if err != nil {
		return nil, err
	}
	g, err := v.openGate(loaded)
	if err != nil {
		return nil, err
	}
	v.inForce.Store(&inForce{text, loaded, g})
	return loaded, nil
}

// inForce is a visitor's gate.
type inForce struct {
	text    string
	loaded  *config.Loaded
	gateway *gateway.Gateway
}

// gateOf is the visitor's gate, with the default configuration if there was none yet.
func (l *Lab) gateOf(v *visitor) (*gateway.Gateway, error) {
	if v.inForce.Load() == nil {
		if err := l.gateFor(v, "", false); err != nil {
			return nil, err
		}
	}
	return v.inForce.Load().gateway, nil
}
