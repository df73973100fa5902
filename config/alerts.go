package config

import (
	"crypto/x509"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moat-gateway/moat/alert"
	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/budget"
	"github.com/moat-gateway/moat/guard/egress"
)

// alerts are who is told when something needs a person. Without rules the ones in docs/operate.md hold.
type alerts struct {
	// What messages say they come from. The default is the machine's name.
	Instance string `yaml:"instance"`
	// Where messages go, by name: each to all of them.
	Webhooks map[string]webhook `yaml:"webhooks,required" keys:"^[a-z0-9][a-z0-9_-]{0,63}$" missing:"name at least one receiver"`
	// What is told, by name. Rules that are written here stand in the place of the default ones.
	Rules map[string]alertRule `yaml:"rules" keys:"^[a-z0-9][a-z0-9_-]{0,63}$"`
}

// webhook is a receiver of messages. They are signed as Standard Webhooks says, and sent again
// until the receiver answers with 2xx, for a day at most.
type webhook struct {
	// `https://`, or `http://` on this machine. May be a reference, as some receivers' URLs are secret.
	URL string `yaml:"url,required"`
	// What signs the messages: base64 of 24 to 64 bytes, with or without `whsec_` before it
	// (`openssl rand -base64 32`). Several sign side by side while the receiver changes over. A `json` receiver has to have one.
	Secrets []Secret `yaml:"secrets,single"`
	// `json` is the message that docs/operate.md describes; `slack` a text for an incoming webhook of Slack, or of what understands the same.
	Format string `yaml:"format" default:"json" enum:"json slack"`
	// Bounds one attempt.
	Timeout time.Duration `yaml:"timeout" default:"10s" range:"100ms 1m"`
	// A file with the authorities of the receiver's certificate, in PEM, in the place of the system's.
	CA string `yaml:"ca"`
	// Address ranges that may be reached though they are not on the public Internet.
	AllowNetworks []netip.Prefix `yaml:"dangerously_allow_networks,single"`
}

// alertRule is one thing that is told: once when it begins, once when it has ended.
type alertRule struct {
	// What the rule looks at. Three count requests in a window: `refused`; `would_refuse`, by guards in
	// report mode; `upstream_failed`, no answer or one of status 500 or more. `budget` is how much of its cap a
	// budget has used. The others are so or not: `stopped`, the kill switch is pulled; `store_down`,
	// the shared store does not answer; `reload_refused`, the configuration on disk was refused and an older one is in force.
	On string `yaml:"on,required" enum:"refused would_refuse upstream_failed budget stopped store_down reload_refused"`
	// The least value that is told: a number of requests such as 100, or a share such as `20%`, of all
	// requests to the same routes, or of a budget's cap.
	Threshold threshold `yaml:"threshold"`
	// How far back requests are counted.
	Window time.Duration `yaml:"window" default:"5m" range:"1s 24h"`
	// How many requests there must be in the window before a share of them is told.
	Least int `yaml:"least" default:"20" range:"1 1000000000"`
	// How long the value must have reached the threshold before it is told.
	For time.Duration `yaml:"for" default:"0s" range:"0s 24h"`
	// How long the value must have been below the threshold before its end is told. Whatever goes
	// up and down faster than that is told once.
	KeepFiring time.Duration `yaml:"keep_firing_for" default:"5m" range:"0s 24h"`
	// Counts only these routes.
	Routes []string `yaml:"routes,single"`
	// Counts only decisions of these steps, such as `rate_limit`.
	Steps []string `yaml:"steps,single"`
	// Counts only decisions with these codes, such as `api-key-unknown`.
	Reasons []string `yaml:"reasons,single"`
	// The budgets to look at. Without it those of the whole site; of one that each visitor has, the
	// one who has used most counts.
	Budgets []string `yaml:"budgets,single"`
}

// threshold is a number, or a share of something.
type threshold struct {
	value float64
	share bool
}

var thresholdType = reflect.TypeFor[threshold]()

var thresholdPattern = regexp.MustCompile(`^[0-9]{1,12}(\.[0-9]{1,6})?%?$`)

func parseThreshold(s string, _ field) (any, string) {
	digits, share := strings.CutSuffix(s, "%")
	n, err := strconv.ParseFloat(digits, 64)
	switch {
	case err != nil || !thresholdPattern.MatchString(s):
		return nil, "not a number such as 100, or a share such as 20%"
	case share && (n <= 0 || n > 100):
		return nil, "a share is more than 0% and at most 100%"
	case share:
		return threshold{n / 100, true}, ""
	case n < 1 || n > 1e9 || n != float64(int64(n)):
		return nil, "write a whole number from 1 to 1000000000, or a share such as 20%"
	}
	return threshold{n, false}, ""
}

// defaultRules are what is told where nobody wrote a rule: what needs a person, whatever the site.
func defaultRules() map[string]alertRule {
	rule := func(on string, t threshold, lasting time.Duration) alertRule {
		r := defaultOf[alertRule]()
		r.On, r.Threshold, r.For = on, t, lasting
		return r
	}
	return map[string]alertRule{
		"refused":         rule("refused", threshold{0.5, true}, time.Minute),
		"upstream_failed": rule("upstream_failed", threshold{0.05, true}, time.Minute),
		"budget":          rule("budget", threshold{0.8, true}, 0),
		"budget_spent":    rule("budget", threshold{1, true}, 0),
		"stopped":         rule("stopped", threshold{}, 0),
		"store_down":      rule("store_down", threshold{}, 30*time.Second),
		"reload_refused":  rule("reload_refused", threshold{}, 0),
	}
}

// alerts judges who is told about what.
func (c *compiler) alerts() {
	const path = "alerts"
	if !c.has(path) {
		return
	}
	out := &gateway.Alerts{Instance: c.f.Alerts.Instance}
	if out.Instance == "" {
		out.Instance, _ = os.Hostname() // a machine without a name tells none
	}
	if w := join(path, "webhooks"); c.has(w) && len(c.f.Alerts.Webhooks) == 0 && c.clean(w) {
		c.fault(w, "", "none, so nobody would be told")
	}
	for _, name := range keys(c.f.Alerts.Webhooks) {
		out.Webhooks = append(out.Webhooks, c.webhook(name, join(join(path, "webhooks"), name)))
	}
	rules := c.f.Alerts.Rules
	switch at := join(path, "rules"); {
	case !c.has(at):
		rules = defaultRules()
	case len(rules) == 0 && c.clean(at):
		c.fault(at, "", "none, so nothing would be told; remove the line for the default ones")
	}
	for _, name := range keys(rules) {
		out.Rules = append(out.Rules, c.alertRule(name, rules[name], join(join(path, "rules"), name)))
	}
	c.out.Gateway.Alerts = out
}

func (c *compiler) webhook(name, path string) alert.Policy {
	w := c.f.Alerts.Webhooks[name]
	out := alert.Policy{Name: name, Timeout: w.Timeout, DangerouslyAllowNetworks: w.AllowNetworks}
	if w.Format == "slack" {
		out.Format = alert.Slack
	}
	u, err := url.Parse(w.URL)
	switch at := join(path, "url"); {
	case w.URL == "": // the decoder has complained
	case err != nil || u.Host == "" || u.Opaque != "":
		c.fault(at, w.URL, "not a URL such as https://alerts.example/moat")
	case u.User != nil:
		c.fault(at, w.URL, "a password in a URL ends up in logs; messages are signed instead: write secrets")
	case u.Scheme == "http" && !alert.Local(u):
		c.fault(at, w.URL, "only https reaches other machines: anybody on the way could read and hold back messages; write https://, with ca if its certificate is your own")
	case u.Scheme != "http" && u.Scheme != "https":
		c.fault(at, w.URL, "the scheme is https, or http on this machine")
	default:
		out.URL = u
		a, aErr := netip.ParseAddr(u.Hostname())
		if a = a.Unmap(); aErr == nil && !alert.Local(u) && !egress.Public(a) && !slices.ContainsFunc(w.AllowNetworks, func(p netip.Prefix) bool { return p.Contains(a) }) {
			c.fault(at, w.URL, fmt.Sprintf("nothing is sent there, as it is no address of the public Internet; if it is meant, write dangerously_allow_networks: %q", netip.PrefixFrom(a, a.BitLen())))
		}
	}
	for i, s := range w.Secrets {
		if s.Reveal() == "" {
			continue
		}
		key, sErr := alert.ParseSecret(s.Reveal())
		if sErr != nil {
			c.fault(item(join(path, "secrets"), i), "", sErr.Error())
			continue
		}
		out.Secrets = append(out.Secrets, key)
	}
	if at := join(path, "secrets"); out.Format == alert.JSON && len(w.Secrets) == 0 && c.clean(path) {
		c.fault(at, "", "missing; without one the receiver cannot tell moat's messages from a stranger's: write a reference to what openssl rand -base64 32 prints")
	}
	if w.CA != "" {
		if text, ok := c.pem(join(path, "ca"), w.CA); ok {
			if out.RootCAs = x509.NewCertPool(); !out.RootCAs.AppendCertsFromPEM(text) {
				c.fault(join(path, "ca"), w.CA, "holds no certificate in PEM")
			}
		}
	}
	for i, p := range w.AllowNetworks {
		if p.IsValid() && p.Bits() == 0 {
			c.fault(item(join(path, "dangerously_allow_networks"), i), p.String(), "holds every address; list the ranges that are meant")
		}
	}
	if len(w.AllowNetworks) > 0 {
		c.dangerous = append(c.dangerous, join(path, "dangerously_allow_networks"))
	}
	return out
}

func (c *compiler) alertRule(name string, r alertRule, path string) gateway.AlertRule {
	on, _ := gateway.ParseAlertOn(r.On)
	out := gateway.AlertRule{
		Name: name, On: on, Threshold: r.Threshold.value, Share: r.Threshold.share, Least: uint64(r.Least), //nolint:gosec // the range is the decoder's.
		Window: r.Window, For: r.For, KeepFiring: r.KeepFiring, Routes: r.Routes, Budgets: r.Budgets,
	}
	needs := on.Counts() || on == gateway.OnBudget
	switch at := join(path, "threshold"); {
	case !c.clean(path): // what is missing or malformed has been told
		return out
	case needs && r.Threshold == (threshold{}):
		c.fault(at, "", "missing; write a number such as 100, or a share such as 20%")
	case !needs && c.has(at):
		c.fault(at, "", fmt.Sprintf("%s is so or it is not; remove the line", r.On))
	case on == gateway.OnBudget && !r.Threshold.share:
		c.fault(at, "", "of a budget it is a share of the cap; write a share such as 80%")
	}
	idle := func(field, why string) {
		if at := join(path, field); c.has(at) {
			c.fault(at, "", why+"; remove the line")
		}
	}
	if !on.Counts() {
		for _, field := range []string{"window", "routes", "steps", "reasons"} {
			idle(field, r.On+" counts no requests")
		}
	}
	if !on.Counts() || !r.Threshold.share {
		idle("least", "means something only beside a share of requests")
	}
	if on != gateway.OnBudget {
		idle("budgets", r.On+" is not about budgets")
	}
	switch at := join(path, "on"); {
	case !c.has(at): // a default rule
	case on == gateway.OnBudget && len(r.Budgets) == 0 && !c.capped(true):
		c.warn(at, r.On, "never fires: no route has a budget by: site; name under budgets those to look at")
	case on == gateway.OnStopped && !c.capped(false):
		c.warn(at, r.On, "never fires: no route has a budget")
	}
	for i, name := range r.Routes {
		if _, ok := c.byName[name]; !ok && name != "" {
			c.fault(item(join(path, "routes"), i), name, "none of the routes has this name"+c.didYouMean(name, maps.Keys(c.byName)))
		}
	}
	for i, name := range r.Budgets {
		if _, ok := c.f.Budgets[name]; !ok && name != "" {
			c.fault(item(join(path, "budgets"), i), name, "none of the budgets has this name"+c.didYouMean(name, maps.Keys(c.f.Budgets)))
		}
	}
	for i, s := range r.Steps {
		step := slices.IndexFunc(guard.Reasons(), func(r guard.Reason) bool { return r.Step().String() == s })
		if step < 0 && s != "" {
			c.fault(item(join(path, "steps"), i), s, "no step of the data path"+c.didYouMean(s, words(guard.Reason.Step)))
		}
		out.Steps = append(out.Steps, guard.Reason(max(step, 0)).Step()) //nolint:gosec // below NumReasons.
	}
	for i, s := range r.Reasons {
		reason, ok := guard.ParseReason(s)
		if !ok && s != "" {
			c.fault(item(join(path, "reasons"), i), s, "no such code; docs/reasons.md has them all"+c.didYouMean(s, words(func(r guard.Reason) guard.Reason { return r })))
		} else if ok && reason.Status() == 0 && on != gateway.OnUpstreamFailed {
			c.fault(item(join(path, "reasons"), i), s, "refuses nothing, so it is never counted")
		}
		out.Reasons = append(out.Reasons, reason)
	}
	return out
}

// capped reports whether a route has a budget; of the whole site, if that is asked.
func (c *compiler) capped(site bool) bool {
	return slices.ContainsFunc(c.out.Gateway.Routes, func(r gateway.Route) bool {
		return r.Modes[guard.Budget] != guard.Off && slices.ContainsFunc(r.Budgets, func(b budget.Rule) bool { return !site || b.By == budget.BySite })
	})
}

// words are the names of something that every reason has.
func words[T fmt.Stringer](of func(guard.Reason) T) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, r := range guard.Reasons() {
			if !yield(of(r).String()) {
				return
			}
		}
	}
}
