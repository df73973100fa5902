package config

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/bot"
)

// bots says what becomes of clients that look like programs. Each signal gives points; their sum is the
// request's score. Without the block nobody looks.
type bots struct {
	// What each signal does: enforce adds its points to the score, report only tells them.
	Signals botSignals `yaml:"signals"`
	// The score from which a client works harder for its tickets.
	Challenge factor `yaml:"challenge" default:"20" or:"off"`
	// The score from which a request costs more of its rate limits.
	Slow slowBots `yaml:"slow"`
	// The score from which a client is kept waiting and then refused.
	Tarpit tarpit `yaml:"tarpit"`
	// The score from which a client is refused at once.
	Deny factor `yaml:"deny" default:"60" or:"off"`
	// Address ranges and autonomous systems, and what a client gets for being in them.
	Lists []botList `yaml:"lists"`
	// A file that tells which autonomous system announces an address: TSV as iptoasn.com publishes it.
	// Lists that name such systems need it.
	ASNs string `yaml:"asns"`
	// Robots that are welcome, by name, once they have proved to be the ones that they say they are.
	Robots map[string]botRobot `yaml:"robots" keys:"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$"`
}

// botSignals has a mode for each signal. What rests on measured fingerprints is only reported, unless
// somebody says otherwise.
type botSignals struct {
	// Sec-Fetch-* that this browser always sends, or that no browser sends together.
	FetchMetadata guard.Mode `yaml:"fetch_metadata" default:"enforce" enum:"enforce report off"`
	// User-Agent, and what a browser of that name sends beside it.
	Headers guard.Mode `yaml:"headers" default:"enforce" enum:"enforce report off"`
	// The order of the headers' names.
	HeaderOrder guard.Mode `yaml:"header_order" default:"report" enum:"enforce report off"`
	// The TLS handshake.
	JA4 guard.Mode `yaml:"ja4" default:"report" enum:"enforce report off"`
	// The settings of an HTTP/2 connection.
	HTTP2 guard.Mode `yaml:"http2" default:"report" enum:"enforce report off"`
	// What the client has done in the last ten minutes.
	Behaviour guard.Mode `yaml:"behaviour" default:"report" enum:"enforce report off"`
	// The lists.
	Reputation guard.Mode `yaml:"reputation" default:"enforce" enum:"enforce report off"`
	// What the page's own script has seen of its browser, such as navigator.webdriver.
	Client guard.Mode `yaml:"client" default:"enforce" enum:"enforce report off"`
}

// slowBots makes requests dearer.
type slowBots struct {
	// The score.
	Score factor `yaml:"score,short" default:"40" or:"off"`
	// What such a request takes of its rate limits beyond its own cost.
	Cost int `yaml:"cost" default:"9" range:"1 1000000"`
}

// tarpit keeps clients waiting before they are refused. While it is full they are refused at once.
type tarpit struct {
	// The score.
	Score factor `yaml:"score,short" default:"off" or:"off"`
	// How many requests wait at the same time.
	AtOnce int `yaml:"at_once" default:"64" range:"1 65536"`
	// How long each does.
	For time.Duration `yaml:"for" default:"10s" range:"100ms 60s"`
}

// botList is a list of addresses.
type botList struct {
	// The file: an address, a range such as 192.0.2.0/24, or a system such as AS64500 a line; what follows
	// `#` or `;` is a comment. A path counts from the configuration file.
	File string `yaml:"file,required"`
	// The points.
	Score int `yaml:"score,required" range:"1 100"`
}

// botRobot is how a robot proves who it is: by its addresses, by a signature, or by either.
type botRobot struct {
	// What its User-Agent has in it, such as Googlebot.
	UserAgent string `yaml:"user_agent"`
	// The domains that its addresses resolve to, and that resolve back to them.
	Domains []string `yaml:"domains,single"`
	// What its Signature-Agent says (Web Bot Auth), such as https://agent.example. Its keys are published there.
	Agent string `yaml:"agent"`
	// A file with its keys, a JWK Set, in the place of those that are published.
	Keys string `yaml:"keys"`
}

func (c *compiler) bots() {
	const path = "bots"
	if !c.has(path) {
		return
	}
	b := &c.f.Bots
	out := &gateway.Bots{SlowCost: b.Slow.Cost, TarpitAtOnce: b.Tarpit.AtOnce, TarpitFor: b.Tarpit.For}
	p := &out.Policy
	s := &b.Signals
	p.Modes = [bot.NumSignals]guard.Mode{
		bot.FetchMetadata: s.FetchMetadata, bot.Headers: s.Headers, bot.HeaderOrder: s.HeaderOrder, bot.JA4: s.JA4,
		bot.HTTP2: s.HTTP2, bot.Behaviour: s.Behaviour, bot.Reputation: s.Reputation, bot.Client: s.Client,
	}
	p.Challenge, p.Slow, p.Tarpit, p.Deny = score(b.Challenge), score(b.Slow.Score), score(b.Tarpit.Score), score(b.Deny)
	c.botScores(p)
	if len(b.Lists) > 0 {
		p.Lists = new(bot.Lists)
	}
	for i, l := range b.Lists {
		at := join(item(join(path, "lists"), i), "file")
		text, ok := c.botFile(at, l.File, c.readTable)
		if !ok {
			continue
		}
		list, faults := bot.ParseList(text)
		c.badLines(at, l.File, faults)
		p.Lists.Lists = append(p.Lists.Lists, bot.ScoredList{Name: l.File, Score: l.Score, List: list})
		if list.NeedsASNs() && b.ASNs == "" {
			c.fault(at, l.File, "names autonomous systems, and nothing tells which addresses are theirs; set bots.asns to a table")
		}
	}
	if text, ok := c.botFile(join(path, "asns"), b.ASNs, c.readTable); ok {
		table, faults := bot.ParseASNs(text)
		c.badLines(join(path, "asns"), b.ASNs, faults)
		if p.Lists != nil {
			p.Lists.ASNs = table
		} else {
			c.warn(join(path, "asns"), b.ASNs, "no list uses it")
		}
	}
	c.botRobots(out)
	if !slices.ContainsFunc(c.out.Gateway.Routes, func(r gateway.Route) bool { return r.Modes[guard.Bot] != guard.Off }) {
		c.warn(path, "", "no route uses it: modes.bot is off on all")
	}
	c.welcome(p)
	c.out.Gateway.Bots = out
}

// welcome warns where programs are wanted, and fare the worse for saying what they are.
func (c *compiler) welcome(p *bot.Policy) {
	points := bot.Headers.Weight()
	reached := func(score int) bool { return 0 < score && score <= points }
	for i, r := range c.out.Gateway.Routes {
		at := join(item("routes", i), "browserless")
		if inherited := join(join("policies", c.f.Routes[i].Policy), "browserless"); !c.has(at) && c.has(inherited) {
			at = inherited
		}
		suffers := reached(p.Deny) || reached(p.Tarpit) || reached(p.Slow) && len(r.RateLimits) > 0
		if suffers && r.CrossSite.AllowBrowserless && r.Modes[guard.Bot] == guard.Enforce && p.Modes[bot.Headers] == guard.Enforce && c.once(at+" bots", false) {
			c.warn(at, "allow", fmt.Sprintf(`programs are welcome here, and bots gives those that say what they are %d points, so they are slowed or refused; write modes: {bot: "off"}, or what bots does from higher scores`, points))
		}
	}
}

// score is a score from which something is done; 0 is never.
func score(f factor) int { return max(int(f), 0) }

// botScores refuses a score that can lead to nothing, since a stricter one asks for no more.
func (c *compiler) botScores(p *bot.Policy) {
	if p.Tarpit > 0 && p.Tarpit == p.Deny {
		c.fault("bots.tarpit", strconv.Itoa(p.Tarpit), "is what deny asks for too; the one that asks for more counts where both are reached, so write a lower or a higher one, or off")
	}
	refused := p.Deny
	if p.Tarpit > 0 && (refused == 0 || p.Tarpit < refused) {
		refused = p.Tarpit
	}
	for _, t := range []struct {
		name        string
		score, next int
	}{{"challenge", p.Challenge, p.Slow}, {"slow", p.Slow, refused}, {"challenge", p.Challenge, refused}} {
		if t.score > 0 && t.next > 0 && t.score >= t.next {
			value, reason := strconv.Itoa(t.score), "never counts"
			if !c.has(join("bots", t.name)) {
				value, reason = "", "is "+value+" where nothing is written, which never counts"
			}
			c.fault(join("bots", t.name), value, fmt.Sprintf("%s: from %d on something stricter is done; write less, or off", reason, t.next))
			return
		}
	}
}

// botFile reads a file that is named, if there is a name.
func (c *compiler) botFile(at, name string, read func(string) ([]byte, error)) ([]byte, bool) {
	if name == "" || !c.clean(at) {
		return nil, false
	}
	text, err := read(name)
	if err != nil {
		c.fault(at, name, cannotRead(err))
		return nil, false
	}
	return text, true
}

func (c *compiler) badLines(at, file string, faults []*bot.LineError) {
	for _, f := range faults {
		c.fault(at, file, f.Error())
	}
}

func (c *compiler) botRobots(out *gateway.Bots) {
	for _, name := range keys(c.f.Bots.Robots) {
		at := join("bots.robots", name)
		r := c.f.Bots.Robots[name]
		robot := bot.Robot{Name: name, UserAgent: r.UserAgent, Domains: r.Domains, Agent: r.Agent}
		if text, ok := c.botFile(join(at, "keys"), r.Keys, c.read); ok {
			robot.Keys = text
		} else if r.Keys != "" {
			continue
		}
		if !c.clean(at) {
			continue
		}
		if _, err := bot.NewRobots(bot.RobotsPolicy{Robots: []bot.Robot{robot}, Fetch: noFetch}); err != nil {
			c.faultLines(at, errors.New(strings.TrimPrefix(err.Error(), name+": ")))
			continue
		}
		out.Robots = append(out.Robots, robot)
	}
	if _, err := bot.NewRobots(bot.RobotsPolicy{Robots: out.Robots, Fetch: noFetch}); err != nil {
		c.faultLines("bots.robots", err)
	}
}

// noFetch stands where nothing is fetched yet.
func noFetch(context.Context, string) (*http.Response, error) {
	return nil, errors.New("not yet")
}
