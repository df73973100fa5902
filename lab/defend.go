package lab

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/moat-gateway/moat/config"
)

// Defended is what became of the battery with a reader's moat.yaml in force.
type Defended struct {
	// OK says that the text has no fault. Without it there are no checks.
	OK       bool    `json:"ok"`
	Faults   []fault `json:"faults"`
	Warnings []fault `json:"warnings"`
	Checks   []Check `json:"checks"`
	// Stopped of the Attacks did not reach the handler. Working of the Legitimate ran, and
	// were as readable as they have to be.
	Stopped    int `json:"stopped"`
	Attacks    int `json:"attacks"`
	Working    int `json:"working"`
	Legitimate int `json:"legitimate"`
}

// Passed reports whether nothing is left to mend.
func (d *Defended) Passed() bool {
	return d.OK && d.Stopped == d.Attacks && d.Working == d.Legitimate
}

// Check is a run of the battery, and what became of it.
type Check struct {
	ID       string `json:"id"`
	Title    string `json:"title"`
	Attack   bool   `json:"attack"`
	Passed   bool   `json:"passed"`
	Ran      bool   `json:"ran"`
	Readable bool   `json:"readable"`
	// Reason is moat's code, if the gate refused.
	Reason string `json:"reason,omitempty"`
	Why    string `json:"why"`
}

// battery is what a lesson's moat.yaml is held against: the lesson's own runs, and more. What
// a script does, or makes sense at the bare API only, cannot be played.
func (l *Lesson) battery() []Run {
	return slices.DeleteFunc(slices.Concat(l.Runs, l.Mend.Checks), func(r Run) bool { return r.Do != "" || r.Only == RoleAPI })
}

// defend holds a moat.yaml against the battery of a lesson. Each check has a world of its
// own, with a gate that has counted nothing yet.
func (l *Lab) defend(ctx context.Context, v *visitor, lesson *Lesson, loaded *config.Loaded) (Defended, error) {
	d := Defended{OK: true, Faults: []fault{}, Warnings: faultsOf(loaded.Warnings), Checks: []Check{}}
	for _, run := range lesson.battery() {
		o, err := l.try(ctx, v, &run, loaded)
		if err != nil {
			return d, err
		}
		c := judged(&run, &o)
		d.Checks = append(d.Checks, c)
		switch {
		case c.Attack && c.Passed:
			d.Stopped++
		case c.Passed:
			d.Working++
		}
		if c.Attack {
			d.Attacks++
		} else {
			d.Legitimate++
		}
	}
	return d, nil
}

// try plays a run in a world of its own, with loaded in force.
func (l *Lab) try(ctx context.Context, v *visitor, run *Run, loaded *config.Loaded) (Outcome, error) {
	w := v.another()
	defer w.close()
	g, err := w.openGate(loaded)
	if err != nil {
		return Outcome{}, fmt.Errorf("moat.yaml: %w", err)
	}
	w.inForce.Store(&inForce{loaded: loaded, gateway: g})
	return l.play(ctx, w, run, RoleGate, time.Now())
}

// judged compares what became of a run to what had to.
func judged(run *Run, o *Outcome) Check {
	c := Check{ID: run.ID, Title: run.Title, Attack: run.Attack, Ran: o.Ran, Readable: o.Readable, Reason: o.Reason}
	want := run.Expect
	if run.Gated != nil {
		want = *run.Gated
	}
	refused := "The gate refused it: " + o.Reason + "."
	if o.Reason == "" {
		refused = "It did not reach the handler."
	}
	switch {
	case c.Attack && c.Ran:
		c.Why = "The handler ran: the attack has come through."
	case c.Attack:
		c.Passed, c.Why = true, refused
	case want.Ran && !c.Ran:
		c.Why = refused + " It is legitimate."
	case want.Readable && !c.Readable:
		c.Why = "The handler ran, and the page could not read the answer, which it needs."
	case !want.Readable && c.Readable:
		c.Why = "The page could read the answer, which is none of its business."
	case !want.Ran && c.Ran:
		c.Why = "The handler ran, and should not have."
	default:
		c.Passed, c.Why = true, "It works."
	}
	return c
}
