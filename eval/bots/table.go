package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// botsYAML is moat's default, but that any point at all is told.
const botsYAML = `bots: {challenge: 1}`

// The scores from which moat does something, where nobody says otherwise.
const (
	challengeAt = 20
	denyAt      = 60
)

func print(all []tool, outcomes []outcome) {
	fmt.Printf("| tool | tier | N | refused by other steps | signals, with their most points | score, default | score, all | ≥ %d, default | ≥ %d, all | ≥ %d, default | ≥ %d, all |\n|-|-|-|-|-|-|-|-|-|-|-|\n", challengeAt, challengeAt, denyAt, denyAt)
	var people outcome
	for i, t := range all {
		o := &outcomes[i]
		if o.missing != nil {
			fmt.Printf("| %s | %s | – | %s | | | | | | | |\n", t.name, t.tier, o.missing)
			continue
		}
		fmt.Printf("| %s | %s | %d%s | %s | %s | %d | %d | %s | %s | %s | %s |\n", t.name, t.tier, o.visits, failures(o), o.refusals(), o.signals(), median(o.scores), median(o.all),
			rate(reaching(o.scores, challengeAt), o.visits), rate(reaching(o.all, challengeAt), o.visits), rate(reaching(o.scores, denyAt), o.visits), rate(reaching(o.all, denyAt), o.visits))
		if t.person {
			people.visits += o.visits
			people.scores, people.all = append(people.scores, o.scores...), append(people.all, o.all...)
		}
	}
	fmt.Printf("\nFalse positives, over %d visits of browsers as people have them:\n\n| | default | all |\n|-|-|-|\n", people.visits)
	for _, row := range []struct {
		what  string
		least int
	}{{"any point at all", 1}, {"asked for work", challengeAt}, {"refused", denyAt}} {
		fmt.Printf("| %s, ≥ %d | %s | %s |\n", row.what, row.least, rate(reaching(people.scores, row.least), people.visits), rate(reaching(people.all, row.least), people.visits))
	}

	fmt.Printf("\n| tool | CPU of a first answer | CPU of %d more | most memory |\n|-|-|-|-|\n", answersMeasured)
	for i, t := range all {
		if c := outcomes[i].cost; c.first > 0 {
			fmt.Printf("| %s | %d ms | %d ms | %d MiB |\n", t.name, c.first/time.Millisecond, c.cpu/time.Millisecond, c.memory>>20)
		}
	}
}

func failures(o *outcome) string {
	if o.failed == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d failed)", o.failed)
}

// refusals lists what else would have refused, in how many of the visits if not in all.
func (o *outcome) refusals() string {
	return listed(o.others, o.visits, func(name string) string { return name })
}

// signals lists what gave points, in how many of the visits if not in all, and how many at most.
func (o *outcome) signals() string {
	return listed(o.seenBy, o.visits, func(name string) string { return fmt.Sprintf("%s %d", name, o.most[name]) })
}

func listed(counts map[string]int, of int, tell func(string) string) string {
	var all []string
	for name, n := range counts {
		text := tell(name)
		if n != of {
			text += fmt.Sprintf(" in %d", n)
		}
		all = append(all, text)
	}
	if len(all) == 0 {
		return "none"
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// verify fails if a tool that is there could not be measured: a table with holes is no result.
func verify(all []tool, outcomes []outcome) error {
	var errs []error
	for i, t := range all {
		if o := &outcomes[i]; o.fault != nil {
			errs = append(errs, fmt.Errorf("%s: %d visits failed, the last one: %w", t.name, o.failed, o.fault))
		}
	}
	return errors.Join(errs...)
}
