package config

import (
	"fmt"
	"maps"
	"slices"
	"time"
	_ "time/tzdata" // the gate may run where the system has none

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/budget"
)

// budgetRule is what each visitor, caller or network, or the whole site, may spend in a period. What is
// not capped is not bounded.
type budgetRule struct {
	// Who shares a counter. Visitor: each chain of tickets, and a call without one by its address. Principal: each caller who is known, and
	// a call of nobody by its address. Address: each address, or /64 of IPv6. Network: each /24, or /48 of IPv6. Site: all together.
	By string `yaml:"by,required" enum:"visitor address network principal site" missing:"write by: site for all together, or visitor, address, network or principal for each of them"`
	// When it begins anew: at the full hour, at midnight, or at midnight before the first of the month.
	Per string `yaml:"per,required" enum:"hour day month" missing:"write per: hour, day or month"`
	// Whose midnight: the name of a time zone, such as `Europe/Zurich`.
	Zone string `yaml:"zone" default:"UTC"`
	// How many calls.
	Requests int `yaml:"requests" range:"1 1000000000000"`
	// How many bytes of bodies, of requests and answers together. They are counted as they pass: what is under way when the cap is reached still passes.
	Bytes size `yaml:"bytes"`
	// How many tokens of models, in and out. What a call may take at most is set aside before it is made.
	Tokens int `yaml:"tokens" range:"1 1000000000000"`
	// How much money, in the currency of the models' prices. What a call may cost at most is set aside before it is made.
	Spend budget.Money `yaml:"spend"`
	// How many calls may be under way at the same time. Each process counts its own.
	AtOnce int `yaml:"at_once" range:"1 1000000"`
	// Whether a refusal tells the caller what is left of the caller's own budget. What the site has spent is never told.
	TellLeft bool `yaml:"tell_left" default:"false"`
}

// budget judges the budget of that name, alone.
func (c *compiler) budget(name string) {
	b, path := c.f.Budgets[name], join("budgets", name)
	by, _ := budget.ParseBy(b.By)
	per, _ := budget.ParsePeriod(b.Per)
	r := budget.Rule{
		Name: name, By: by, Per: per, AtOnce: b.AtOnce, TellLeft: b.TellLeft,
		Cap: budget.Amount{Requests: int64(b.Requests), Bytes: int64(b.Bytes), Tokens: int64(b.Tokens), Money: b.Spend},
	}
	if at := join(path, "bytes"); b.Bytes == 0 && c.has(at) && c.clean(at) {
		c.fault(at, "0", nothing)
	}
	if zone, err := time.LoadLocation(b.Zone); err != nil || b.Zone == "Local" {
		c.fault(join(path, "zone"), b.Zone, "not a time zone that is known here; write a name such as Europe/Zurich, or UTC")
	} else if b.Zone != "UTC" {
		r.Zone = zone
	}
	if b.TellLeft && by == budget.BySite {
		c.fault(join(path, "tell_left"), "true", "what is left of the site's budget is nobody's to know; remove the line")
	}
	if !c.clean(path) {
		return // what is missing or malformed has been told
	}
	if err := r.Check(); err != nil {
		c.fault(path, "", err.Error())
		return
	}
	c.budgetRules[name] = r
}

// budgets judges the budgets that a route names, side by side.
func (c *compiler) budgets(r *route, out *gateway.Route, where func(field string) string) []budget.Rule {
	var rules []budget.Rule
	p := &r.Override
	list := where("budgets")
	switch {
	case len(p.Budgets) == 0:
		if out.Model != nil && c.once(where("model")+" without budgets "+r.Match, false) {
			c.warn(where("model"), "", "no budget holds here: nothing bounds what all calls cost together, and moat budget stop does not stop them; name budgets")
		}
		return nil
	case p.Modes.Budget == guard.Off && c.once(where("modes.budget"), false):
		c.warn(where("modes.budget"), "off", "no budget holds here, though some are named, and the kill switch does not stop it")
	}
	for i, name := range p.Budgets {
		at := item(list, i)
		if name == "" {
			continue
		}
		if _, ok := c.f.Budgets[name]; !ok {
			if c.once(at, false) {
				c.fault(at, name, "none of the budgets has this name"+c.didYouMean(name, maps.Keys(c.f.Budgets)))
			}
			continue
		}
		c.used[join("budgets", name)] = true
		rule, ok := c.budgetRules[name]
		if !ok || slices.ContainsFunc(rules, func(r budget.Rule) bool { return r.Name == name }) {
			continue // it is faulty, or listed twice: both have been told
		}
		c.aimless(rule, r, out, at)
		if most := rule.Cap.Tokens; out.Model != nil && 0 < most && most < out.Model.MaxTokens && c.once(at+" tokens "+r.Match, false) {
			c.warn(at, name, fmt.Sprintf("a call that names no bound is set aside with max_tokens, %d, which this budget of %d tokens never has", out.Model.MaxTokens, most))
		}
		rules = append(rules, rule)
	}
	escapes := func(r budget.Rule) bool { return r.By == budget.ByVisitor }
	if len(rules) > 0 && !slices.ContainsFunc(rules, func(r budget.Rule) bool { return !escapes(r) }) && c.once(list+" of visitors", false) {
		c.warn(list, rules[0].Name, "only counts visitors, and anybody can come as a new one: name a budget by address, network or site too")
	}
	return rules
}

// aimless warns of what a budget on a route cannot count by.
func (c *compiler) aimless(rule budget.Rule, r *route, out *gateway.Route, at string) {
	switch {
	case rule.By == budget.ByVisitor && out.Tickets != gateway.TicketsRequired && c.once(at+" by visitor "+r.Match, false):
		c.warn(at, rule.Name, "counts by address alone on route "+r.Match+": the route requires no tickets; write tickets: require, or by: address")
	case rule.By == budget.ByPrincipal && slices.Contains(r.Auth, public) && c.once(at+" by principal "+r.Match, false):
		c.warn(at, rule.Name, "counts by address alone on route "+r.Match+": auth is public, so nobody is known")
	}
	if (rule.Cap.Tokens > 0 || rule.Cap.Money > 0) && out.Model == nil && c.once(at+" of models "+r.Match, false) {
		c.warn(at, rule.Name, "calls of route "+r.Match+" take no tokens and no money: nothing says that the upstream is a provider of models; write model, and models with their prices")
	}
}

// budgetStore judges where what has been spent is kept, once it is known that something is to be.
func (c *compiler) budgetStore() {
	const path = "store.file"
	asked := c.capped(false)
	switch {
	case !asked && c.has(path):
		c.warn(path, c.f.Store.File, "has no effect: no route has a budget")
	case c.out.Valkey != nil && c.has(path):
		c.warn(path, c.f.Store.File, "has no effect: budgets are kept in store.valkey")
	case slices.Contains(c.faulty, "store"): // it is no block, which has been told
	case asked && c.out.Valkey == nil && !c.has(path):
		c.fault(path, "", "missing: a budget that a restart forgets is no cap; write store: {file: moat.db}, a path that the gate can write and nobody else, or store: {valkey: …}")
	case asked && c.out.Valkey == nil && c.f.Store.File != "":
		c.out.SpentFile = c.path(c.f.Store.File)
	}
}

// nothing is what a cap of 0 would come to.
const nothing = "0 would allow nothing; remove the route, or the line if this is not to be capped. To stop for a while, run moat budget stop"

func parseMoney(s string, _ field) (any, string) {
	m, err := budget.ParseMoney(s)
	switch {
	case err != nil:
		return nil, err.Error()
	case m == 0:
		return nil, nothing
	}
	return m, ""
}
