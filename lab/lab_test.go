package lab

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// open starts a lab on a port that the system chooses.
func open(t *testing.T) *Lab {
	t.Helper()
	lessons, err := Lessons()
	if err != nil {
		t.Fatal(err)
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	l := New(Options{Names: Localhost("http", port), Lessons: lessons})
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error)
	go func() { done <- l.Serve(ctx, listener) }()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return l
}

// TestRunsAsTheModelHasThem: what a lesson says of its runs is what becomes of them, at the
// bare API and through moat.
func TestRunsAsTheModelHasThem(t *testing.T) {
	l := open(t)
	for _, lesson := range l.o.Lessons {
		for _, run := range append(lesson.Runs, lesson.Break...) {
			if run.Do != "" {
				continue // the browser's tests have these
			}
			bare, gated := &run.Expect, run.Gated
			if run.Only == RoleGate {
				bare, gated = nil, cmp.Or(gated, bare)
			}
			for target, want := range map[Role]*Expect{RoleAPI: bare, RoleGate: gated} {
				if want == nil {
					continue
				}
				t.Run(lesson.Name+"/"+run.ID+"/"+string(target), func(t *testing.T) {
					v := reader(l).another()
					defer v.close()
					if err := l.gateFor(v, lesson.Name, true); err != nil {
						t.Fatal(err)
					}
					o, err := l.play(t.Context(), v, &run, target, time.Now())
					if err != nil {
						t.Fatal(err)
					}
					if o.Expect != *want {
						t.Errorf("got %+v; want %+v\n%s", o.Expect, *want, recount(&o))
					}
				})
			}
		}
	}
}

// recount is what became of a run, to read.
func recount(o *Outcome) string {
	var b strings.Builder
	for _, e := range o.Events {
		fmt.Fprintf(&b, "%d %s %s %s %v %s %s %s %s\n", e.Request, e.Kind, e.Method, e.URL, e.Header, e.Outcome, e.Reason, e.Text, e.Did)
	}
	return b.String()
}

// TestRunsAreTheSameByEveryName: what a lesson says is true over https, by address, and in a
// lab that is shared.
func TestRunsAreTheSameByEveryName(t *testing.T) {
	lessons, err := Lessons()
	if err != nil {
		t.Fatal(err)
	}
	public, err := Public("https://lab.example", "https://stranger.example")
	if err != nil {
		t.Fatal(err)
	}
	ports := map[Role]string{}
	for i, role := range []Role{RoleLab, RoleBank, RoleAPI, RoleGate, RoleBlog, RoleStranger} {
		ports[role] = strconv.Itoa(7700 + i)
	}
	for name, names := range map[string]Names{"https": Localhost("https", "7700"), "by address": ByAddress("http", ports), "shared": public} {
		l := New(Options{Names: names, Lessons: lessons})
		t.Cleanup(l.visitors.close)
		v := reader(l)
		if names.shared {
			v = l.visitors.come(time.Now())
		}
		for _, lesson := range lessons {
			for _, run := range append(lesson.Runs, lesson.Break...) {
				if run.Do != "" || run.Only == RoleGate {
					continue
				}
				own := v.another()
				o, err := l.play(t.Context(), own, &run, RoleAPI, time.Now())
				own.close()
				if err != nil || o.Expect != run.Expect {
					t.Errorf("%s: %s/%s: %v, %+v; want %+v", name, lesson.Name, run.ID, err, o.Expect, run.Expect)
				}
			}
		}
	}
}
