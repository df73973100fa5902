package e2e

import (
	"context"
	"net"
	"slices"
	"testing"

	"github.com/moat-gateway/moat/lab"
)

// startLabByAddress is a lab for browsers that do not resolve bank.localhost: a port for each
// role.
func startLabByAddress(t *testing.T) labWorld {
	t.Helper()
	var listeners []net.Listener
	ports := map[lab.Role]string{}
	for _, role := range []lab.Role{lab.RoleLab, lab.RoleBank, lab.RoleAPI, lab.RoleGate, lab.RoleBlog, lab.RoleStranger} {
		listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, listener)
		if _, ports[role], err = net.SplitHostPort(listener.Addr().String()); err != nil {
			t.Fatal(err)
		}
	}
	names := lab.ByAddress("http", ports)
	l := lab.New(lab.Options{Names: names, Lessons: labLessons(t)})
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	over := make(chan error)
	go func() { over <- l.Serve(ctx, listeners...) }()
	t.Cleanup(func() {
		stop()
		<-over
	})
	return labWorld{origins: names.Origins("")}
}

// TestLabByAddress: localhost and 127.0.0.1 are two sites, and the ports of localhost one, so
// lessons about sites come out as they do with names.
func TestLabByAddress(t *testing.T) {
	thorough(t)
	t.Parallel()
	p := newLabTab(t, startLabByAddress(t))
	defer p.close()
	played := 0
	for _, lesson := range labLessons(t) {
		if !slices.Contains([]string{"transfer", "same-site", "websocket"}, lesson.Name) {
			continue
		}
		for _, c := range labCases(&lesson) {
			if c.run.Age > 0 {
				continue
			}
			played++
			t.Run(c.String(), func(t *testing.T) {
				p.t = t
				p.anew()
				p.show(c.lesson, c.run, c.target)
				if len(c.run.Cookies) > 0 {
					p.signIn()
				}
				c.check(t, p.make(c.want))
			})
		}
	}
	if played < 10 {
		t.Errorf("%d runs were played", played)
	}
}
