package ticket_test

import (
	"bytes"
	"net/http"
	"testing"

	"github.com/moat-gateway/moat/guard/ticket"
	"github.com/moat-gateway/moat/store/memory"
)

// BenchmarkDecide is the cost of a call's ticket, all but the marking of its use, which
// store/memory measures.
func BenchmarkDecide(b *testing.B) {
	s := newSite(b)
	for name, r := range map[string]*http.Request{
		"GET":  call("GET", target, "", s.visit.Token("GET", target, nil)),
		"POST": call("POST", target, prompt, s.visit.Token("POST", target, []byte(prompt))),
	} {
		b.Run(name, func(b *testing.B) {
			x := ticket.Facts{Now: now, Client: home, Dry: true}
			b.ReportAllocs()
			for b.Loop() {
				if _, d := s.Decide(b.Context(), r, x); d.Denied() {
					b.Fatal(d.Reason)
				}
			}
		})
	}
}

// BenchmarkIssue is the cost of a document that asks for tickets, and within it that of the
// ticket itself.
func BenchmarkIssue(b *testing.B) {
	s := newSite(b)
	g, err := ticket.New(ticket.Policy{Secrets: [][]byte{secret}}, memory.NewTickets(1<<30, ticket.DefaultLifetime), nil)
	if err != nil {
		b.Fatal(err)
	}
	s.Guard = g
	open, err := s.visit.Open()
	if err != nil {
		b.Fatal(err)
	}
	s.take(s.ask(open, home, chrome))
	renew, err := s.visit.Renew()
	if err != nil {
		b.Fatal(err)
	}
	bind := ticket.BindTo(home, chrome)
	for name, doc := range map[string][]byte{"renew": renew, "open": open} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				q, d := g.Read(now, bytes.NewReader(doc))
				if !d.Denied() {
					_, d = g.Issue(b.Context(), q, now, demo, bind)
				}
				if d.Denied() {
					b.Fatal(d.Reason)
				}
			}
		})
	}
	b.Run("ticket", func(b *testing.B) {
		q, _ := g.Read(now, bytes.NewReader(renew))
		b.ReportAllocs()
		for b.Loop() {
			if _, d := g.Issue(b.Context(), q, now, demo, bind); d.Denied() {
				b.Fatal(d.Reason)
			}
		}
	})
}
