package page

import (
	"time"

	"github.com/moat-gateway/moat/browser"
)

// Played is what the model says of all requests of a case.
type Played struct {
	Traces []browser.Trace `json:"traces"`
}

// play plays a case whose answers were recorded, in order: where a URL answered twice, each
// answer counts once, and the last one for good.
func play(input string, now time.Time) (*Played, error) {
	c, err := readCase(input)
	if err != nil {
		return nil, err
	}
	if err = bounded(&c); err != nil {
		return nil, err
	}
	traces, err := c.RunWith(now, inOrder(&c))
	if err != nil {
		return nil, err
	}
	return &Played{traces}, nil
}

func inOrder(c *browser.Case) browser.Server {
	used := map[int]bool{}
	return func(m browser.Message) browser.Answer {
		last := -1
		for i, r := range c.Answers {
			if (r.URL != "" && r.URL != m.URL) || (r.On != "" && (r.On == "preflight") != m.Preflight) {
				continue
			}
			last = i
			if !used[i] {
				break
			}
		}
		if last < 0 {
			return c.Serve(m)
		}
		used[last] = true
		return c.Answers[last].Answer
	}
}
