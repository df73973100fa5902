package budget

import (
	"errors"
	"fmt"
	"time"
)

// By says who shares a counter.
type By uint8

const (
	// ByVisitor counts each chain of tickets, and a request without one by its address.
	ByVisitor By = iota + 1
	// ByAddress counts each address (IPv4) or /64 (IPv6).
	ByAddress
	// ByNetwork counts each /24 (IPv4) or /48 (IPv6).
	ByNetwork
	// ByPrincipal counts each caller, and a request of nobody who is known by its address.
	ByPrincipal
	// BySite counts all together.
	BySite
)

var byNames = [...]string{ByVisitor: "visitor", ByAddress: "address", ByNetwork: "network", ByPrincipal: "principal", BySite: "site"}

func (b By) String() string {
	if b > 0 && int(b) < len(byNames) {
		return byNames[b]
	}
	return fmt.Sprintf("By(%d)", uint8(b))
}

// ParseBy reads what String has written.
func ParseBy(s string) (By, bool) {
	for i, n := range byNames {
		if n == s && s != "" {
			return By(i), true
		}
	}
	return 0, false
}

// Period is how often a budget begins anew.
type Period uint8

// The periods.
const (
	Hour Period = iota + 1
	Day
	Month
)

var periodNames = [...]string{Hour: "hour", Day: "day", Month: "month"}

func (p Period) String() string {
	if p > 0 && int(p) < len(periodNames) {
		return periodNames[p]
	}
	return fmt.Sprintf("Period(%d)", uint8(p))
}

// ParsePeriod reads what String has written.
func ParsePeriod(s string) (Period, bool) {
	for i, n := range periodNames {
		if n == s && s != "" {
			return Period(i), true
		}
	}
	return 0, false
}

// Span is one period, in Unix seconds: from Start until just before End.
type Span struct{ Start, End int64 }

// Holds reports whether t is in the span.
func (s Span) Holds(t time.Time) bool { return s.Start <= t.Unix() && t.Unix() < s.End }

// At is the period that t is in, by the calendar of a zone; nil stands for UTC. Hours are those
// of UTC everywhere.
func (p Period) At(t time.Time, zone *time.Location) Span {
	if p == Hour {
		start := t.UTC().Truncate(time.Hour)
		return Span{start.Unix(), start.Add(time.Hour).Unix()}
	}
	if zone == nil {
		zone = time.UTC
	}
	year, month, day := t.In(zone).Date()
	if p == Month {
		return Span{midnight(year, month, 1, zone), midnight(year, month+1, 1, zone)}
	}
	span := Span{Start: midnight(year, month, day, zone)}
	for next := day + 1; span.End <= span.Start; next++ { // a zone that changes sides of the date line skips a day
		if end := midnight(year, month, next, zone); time.Unix(end, 0).In(zone).Day() != day {
			span.End = end
		}
	}
	return span
}

// midnight is the first second of a day. Where clocks are set forward over midnight the day begins
// later, and time.Date may answer with an hour before it.
func midnight(year int, month time.Month, day int, zone *time.Location) int64 {
	t := time.Date(year, month, day, 0, 0, 0, 0, zone)
	if t.Hour() == 23 {
		t = t.Add(time.Hour)
	}
	return t.Unix()
}

// Rule is one budget.
type Rule struct {
	// Name tells counters apart. Routes that name the same budget share it.
	Name string
	By   By
	Per  Period
	// Zone is whose calendar counts; nil stands for UTC.
	Zone *time.Location
	// Cap is the most of each unit in a period. What is 0 is not capped.
	Cap Amount
	// AtOnce is how many calls may be under way in this process; 0 is no bound.
	AtOnce int
	// TellLeft has a refusal tell the caller what is left of the caller's own budget.
	TellLeft bool
}

// Check says what is wrong with a Rule.
func (r *Rule) Check() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if r.Name == "" {
		wrong("no name")
	}
	if r.By == 0 || int(r.By) >= len(byNames) {
		wrong("by: %v is none of visitor, address, network, principal, site", r.By)
	}
	if r.Per == 0 || int(r.Per) >= len(periodNames) {
		wrong("per: %v is none of hour, day, month", r.Per)
	}
	for _, u := range Units() {
		if n := r.Cap.Of(u); n < 0 || n > MaxAmount {
			wrong("%s: %d is not between 0 and %d", u, n, int64(MaxAmount))
		}
	}
	if r.Cap == (Amount{}) && r.AtOnce == 0 {
		wrong("caps nothing; write requests, bytes, tokens, spend or at_once")
	}
	if r.AtOnce < 0 {
		wrong("at_once: %d is less than 0", r.AtOnce)
	}
	if r.TellLeft && r.By == BySite {
		wrong("what is left of the site's budget is nobody's to know")
	}
	return errors.Join(errs...)
}

// counts is the part of an amount that the rule counts: requests in any case, and of the rest what
// it caps. Tokens and money go together, because whoever caps one of them wants to see both.
func (r *Rule) counts(a Amount) Amount {
	if r.Cap.Bytes == 0 {
		a.Bytes = 0
	}
	if r.Cap.Tokens == 0 && r.Cap.Money == 0 {
		a.Tokens, a.Money = 0, 0
	}
	return a
}
