package bot

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// yesTTL, noTTL and failTTL are how long an answer holds: that an address is a robot's, that it
	// is not, and that nobody could tell.
	yesTTL, noTTL, failTTL = time.Hour, 5 * time.Minute, 30 * time.Second
	// maxAnswers bounds each of the two kinds of answers that are kept, and maxLookups the look-ups
	// under way.
	maxAnswers, maxLookups = 4096, 32
	// maxPTR bounds the names of an address that are looked at.
	maxPTR = 8
)

// names tells whose domain an address is in. The answers that are not a yes have a table of their
// own: who can make as many addresses as he likes pass for a robot's cannot push the robot's own
// out of it.
type names struct {
	mu      sync.Mutex
	yes, no map[question]answer
	flights map[question]*flight
}

type question struct {
	domains string // the robot's, which a reload may change
	client  netip.Addr
}

type answer struct {
	proof Proof
	why   string
	until time.Time
}

// flight is a look-up that is under way.
type flight struct {
	done   chan struct{} // closed once answer is there
	answer answer
}

func newNames() *names {
	return &names{yes: make(map[question]answer), no: make(map[question]answer), flights: make(map[question]*flight)}
}

// resolved says whether the client's address is one of the robot's.
func (r *Robots) resolved(ctx context.Context, robot *Robot, client netip.Addr, now time.Time) Claim {
	a := r.answer(ctx, robot, question{strings.Join(robot.Domains, " "), client}, now)
	return Claim{Robot: robot.Name, Proof: a.proof, Why: a.why}
}

func (r *Robots) answer(ctx context.Context, robot *Robot, q question, now time.Time) answer {
	n := r.names
	n.mu.Lock()
	if a, ok := n.known(q, now); ok {
		n.mu.Unlock()
		return a
	}
	f := n.flights[q]
	if f == nil {
		if len(n.flights) >= maxLookups {
			n.mu.Unlock()
			return answer{proof: Unverified, why: "too many addresses are being looked up"}
		}
		f = &flight{done: make(chan struct{})}
		n.flights[q] = f
		go r.lookUp(robot, q, f, now) //nolint:gosec // it outlives the request: the next one will ask the same
	}
	n.mu.Unlock()
	if r.wait(ctx, f.done) {
		return f.answer
	}
	return answer{proof: Unverified, why: "its address is being looked up"}
}

// wait waits for what is being looked up, and reports whether it is there.
func (r *Robots) wait(ctx context.Context, done <-chan struct{}) bool {
	if r.policy.Wait <= 0 {
		return false
	}
	t := time.NewTimer(r.policy.Wait)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

// lookUp answers a question. It goes on when the request that asked is gone: the next will ask the same.
func (r *Robots) lookUp(robot *Robot, q question, f *flight, now time.Time) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), r.policy.ResolveTimeout)
	defer cancel()
	f.answer = r.ask(ctx, robot, q.client)
	now = now.Add(time.Since(began))
	ttl := failTTL
	switch f.answer.proof {
	case Verified:
		ttl = yesTTL
	case Refuted:
		ttl = noTTL
	case Unverified, NoClaim:
	}
	f.answer.until = now.Add(ttl)
	r.names.keep(q, f.answer, now)
	close(f.done)
}

// ask resolves the address, and then the name back: whoever holds an address can have it resolve to
// any name, but only the name's owner can have that resolve to the address.
func (r *Robots) ask(ctx context.Context, robot *Robot, client netip.Addr) answer {
	pointers, err := r.policy.Resolver.LookupAddr(ctx, client.String())
	if err != nil && len(pointers) == 0 {
		if missing(err) {
			return answer{proof: Refuted, why: "its address resolves to no name"}
		}
		return answer{proof: Unverified, why: "its address could not be looked up"}
	}
	failed := false
	for _, name := range pointers[:min(len(pointers), maxPTR)] {
		if !slices.ContainsFunc(robot.Domains, func(d string) bool { return under(name, d) }) {
			continue
		}
		addrs, err := r.policy.Resolver.LookupNetIP(ctx, "ip", name)
		if slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Unmap() == client }) {
			return answer{proof: Verified, why: "its address resolves to " + name + " and back"}
		}
		failed = failed || err != nil && !missing(err)
	}
	if failed {
		return answer{proof: Unverified, why: "the name of its address could not be looked up"}
	}
	return answer{proof: Refuted, why: "its address does not resolve to a name in " + strings.Join(robot.Domains, " or ") + " and back"}
}

// missing reports whether the answer was that there is nothing, and not that there was no answer.
func missing(err error) bool {
	e, ok := errors.AsType[*net.DNSError](err)
	return ok && e.IsNotFound
}

// under reports whether a name is a domain or below it.
func under(name, domain string) bool {
	name = strings.TrimSuffix(name, ".")
	if len(name) < len(domain) || !strings.EqualFold(name[len(name)-len(domain):], domain) {
		return false
	}
	return len(name) == len(domain) || name[len(name)-len(domain)-1] == '.'
}

// known returns the answer that holds. mu is held.
func (n *names) known(q question, now time.Time) (answer, bool) {
	for _, table := range []map[question]answer{n.yes, n.no} {
		if a, ok := table[q]; ok {
			if now.Before(a.until) {
				return a, true
			}
			delete(table, q)
		}
	}
	return answer{}, false
}

func (n *names) keep(q question, a answer, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.flights, q)
	table := n.no
	if a.proof == Verified {
		table = n.yes
	}
	if len(table) >= maxAnswers {
		evict(table, now)
	}
	table[q] = a
}

// evict makes room: what holds no more goes, and if that is nothing, any answer, which costs a look-up.
func evict(table map[question]answer, now time.Time) {
	var some question
	for q, a := range table {
		if some = q; !now.Before(a.until) {
			delete(table, q)
		}
	}
	if len(table) >= maxAnswers {
		delete(table, some)
	}
}
