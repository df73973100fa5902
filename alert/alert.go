// Package alert tells people what the gate has noticed, by webhook, once for each episode.
//
// A Webhook's messages are signed as Standard Webhooks says (https://www.standardwebhooks.com),
// so that a receiver can tell them from a stranger's, and a repeated one from a new one. Those
// that do not arrive are sent again until they do, or are a day old. Nothing here holds a
// request up: messages wait in a bounded queue, and the oldest gives way.
//
// It believes the configuration with where messages go, the resolver with no more than that:
// whatever address a name has, only the public Internet is reached, unless the configuration
// says otherwise. Messages hold counts and names of the configuration, nothing that a client sent.
package alert

import "time"

// Message is the body of a webhook. Fields may be added to it; those that are here stay.
type Message struct {
	// Type is "alert.firing", "alert.resolved" or "alert.test".
	Type string `json:"type"`
	// Timestamp is when it happened, which may be long before it is told.
	Timestamp time.Time `json:"timestamp"`
	Data      Data      `json:"data"`
}

// The types of messages.
const (
	Firing   = "alert.firing"
	Resolved = "alert.resolved"
	Test     = "alert.test"
)

// Data is what an alert is about.
type Data struct {
	// Rule is the rule's name, and On what it looks at.
	Rule string `json:"rule"`
	On   string `json:"on"`
	// State is "firing", "resolved" or "test".
	State string `json:"state"`
	// Budget is the budget that a rule on budgets found, or absent.
	Budget string `json:"budget,omitempty"`
	// Value has reached Threshold, or has come back from there. Both are in Unit: "requests" is
	// a number of them, "share" a part of 1, "state" is 1 for what is so, and 0 for what is not.
	Value     float64 `json:"value"`
	Threshold float64 `json:"threshold"`
	Unit      string  `json:"unit"`
	// Window is the time in seconds in which requests were counted, or absent.
	Window float64 `json:"window_seconds,omitempty"`
	// Since is when the value first reached the threshold.
	Since time.Time `json:"since"`
	// Instance is the gate that tells.
	Instance string `json:"instance"`
	// Top are the most frequent reasons among the requests, at most five.
	Top []Count `json:"top_reasons,omitempty"`
}

// Count is how many requests had a reason.
type Count struct {
	Reason string `json:"reason"`
	Step   string `json:"step"`
	Count  uint64 `json:"count"`
}

// Episode is the time from when a value is too high to when it no longer is. The zero Episode
// has not begun.
type Episode struct {
	since    time.Time // zero while the value is not too high
	lastHigh time.Time
	firing   bool
	over     bool // it has fired, and was resolved
}

// Change is what has become of an Episode.
type Change uint8

// The changes of an Episode.
const (
	Same Change = iota
	Fires
	Resolves
)

// Look takes the episode on to now. It fires once the value has been too high for as long as
// lasting, without a break, and resolves once it has not been for as long as quiet.
func (e *Episode) Look(now time.Time, high bool, lasting, quiet time.Duration) Change {
	if !e.firing && (e.over || !high) {
		*e = Episode{}
	}
	switch {
	case high && e.since.IsZero():
		e.since, e.lastHigh = now, now
	case high:
		e.lastHigh = now
	}
	switch {
	case high && !e.firing && now.Sub(e.since) >= lasting:
		e.firing = true
		return Fires
	case e.firing && !high && now.Sub(e.lastHigh) >= quiet:
		e.firing, e.over = false, true
		return Resolves
	}
	return Same
}

// Since is when the value first was too high, in this episode or the one that has just ended.
func (e *Episode) Since() time.Time { return e.since }

// Firing reports whether the episode has fired, and has not been resolved.
func (e *Episode) Firing() bool { return e.firing }
