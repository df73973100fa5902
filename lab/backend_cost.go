package lab

import (
	"fmt"
	"net"
	"net/http"
	"strings"
)

// callPrice is what a call of the AI model costs, in cents.
const callPrice = 2

// askModel is what attackers use others' APIs for: an answer that somebody else pays.
func (v *visitor) askModel(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	v.books.Calls++
	v.books.Spent += callPrice
	calls, spent := v.books.Calls, v.books.Spent
	v.mu.Unlock()
	v.ran(r, fmt.Sprintf("asked the AI model: call %d, %d cents in all", calls, spent))
	writeJSON(w, http.StatusOK, map[string]any{"answer": fmt.Sprintf("You asked %.200q. That is a good question.", fields(r).Get("prompt")), "calls": calls, "spent": spent})
}

// limit is how often an address may ask in a run.
const limit = 3

// maxAddresses bounds those that are counted.
const maxAddresses = 1000

// limited is a limit by the address that X-Forwarded-For begins with. Whoever writes that
// field himself is somebody new each time.
func (v *visitor) limited(w http.ResponseWriter, r *http.Request) {
	address, _, _ := net.SplitHostPort(r.RemoteAddr)
	if first, _, _ := strings.Cut(r.Header.Get("X-Forwarded-For"), ","); strings.TrimSpace(first) != "" {
		address = fmt.Sprintf("%.60s", strings.TrimSpace(first))
	}
	v.mu.Lock()
	if v.tally.asked == nil || len(v.tally.asked) == maxAddresses {
		v.tally.asked = map[string]int{}
	}
	v.tally.asked[address]++
	n := v.tally.asked[address]
	v.mu.Unlock()
	if n > limit {
		refuse(w, http.StatusTooManyRequests, fmt.Sprintf("%.40s has asked %d times, which is enough", address, limit))
		return
	}
	v.askModel(w, r)
}
