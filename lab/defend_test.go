package lab

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestEachMendHasASolution: the solution passes all checks of its lesson; what somebody might
// take for one, and what the reader begins with, fail at least one; none has a fault.
func TestEachMendHasASolution(t *testing.T) {
	l := open(t)
	me := l.visitors.find("", time.Now())
	for i := range l.o.Lessons {
		lesson := &l.o.Lessons[i]
		if lesson.Mend == nil {
			continue
		}
		for _, c := range []struct {
			name, text string
			passes     bool
		}{{"start", lesson.Mend.Start, false}, {"naive", lesson.Mend.Naive, false}, {"solution", lesson.Mend.Solution, true}} {
			t.Run(lesson.Name+"/"+c.name, func(t *testing.T) {
				loaded, err := l.compile(me, c.text)
				if err != nil {
					t.Fatal(err)
				}
				d, err := l.defend(t.Context(), me, lesson, loaded)
				if err != nil {
					t.Fatal(err)
				}
				if d.Attacks == 0 || d.Legitimate == 0 {
					t.Errorf("%d attacks and %d legitimate requests: a battery has both", d.Attacks, d.Legitimate)
				}
				if d.Passed() != c.passes {
					t.Errorf("it passes: %v; want %v", d.Passed(), c.passes)
					for _, check := range d.Checks {
						t.Logf("%-20s attack %-5v passed %-5v %s", check.ID, check.Attack, check.Passed, check.Why)
					}
				}
			})
		}
	}
}

// TestGatesThatFetchWhatIsInside: that the API's handler did not run does not stop an attack
// if the gate itself gets what is inside, and gives it away.
func TestGatesThatFetchWhatIsInside(t *testing.T) {
	l := open(t)
	me := l.visitors.find("", time.Now())
	lesson := l.lesson("open-proxy")
	for name, c := range map[string]struct {
		fetch string
		fails []string
	}{
		"as the solution": {"{hosts: [rates.example]}", nil},
		"by name": {
			"{hosts: [rates.example, metadata.internal, localhost], dangerously_allow_networks: [169.254.169.254/32, 127.0.0.1/32], content_types: [text/plain, application/json]}",
			[]string{"metadata-name", "loopback-name"},
		},
		"the partner's name": {
			"{hosts: [rates.example, inner.rates.example], dangerously_allow_networks: [10.0.0.5/32]}",
			[]string{"inner-name"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(lesson.Mend.Solution, "{hosts: [rates.example]}", c.fetch, 1)
			loaded, err := l.compile(me, text)
			if err != nil {
				t.Fatal(err)
			}
			d, err := l.defend(t.Context(), me, lesson, loaded)
			if err != nil {
				t.Fatal(err)
			}
			var fails []string
			for _, check := range d.Checks {
				if !check.Passed {
					fails = append(fails, check.ID)
				}
			}
			if !slices.Equal(fails, c.fails) || d.Passed() != (c.fails == nil) {
				t.Errorf("%q fail, passed %v; want %q", fails, d.Passed(), c.fails)
			}
		})
	}
}
