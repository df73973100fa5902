package gateway

import (
	"net/http"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/challenge"
	"github.com/moat-gateway/moat/guard/ticket"
)

// enterPath is where a browser without script comes back to when it has waited.
const enterPath = OwnPath + "enter"

// wait shows a visitor whose browser brought no ticket a page that waits and then goes on.
// A browser that runs script would have come by fetch, with a ticket.
func (g *Gateway) wait(st *state, x *exchange, w http.ResponseWriter, r *http.Request, d guard.Decision) {
	ticket.Strip(r) // which was refused, and would be again
	to, err := challenge.ParseTarget(r.URL.RequestURI())
	if err != nil {
		to = challenge.Target{}
	}
	g.obs.record(st, x, r, d, guard.Enforce)
	// Whoever does not bring this back would not bring the pass along either, and would
	// wait again and again.
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // as secure as the connection.
		Name: ticket.ProbeCookie(x.secure), Value: "1", Path: "/", MaxAge: int(challenge.Lifetime / time.Second),
		Secure: x.secure, HttpOnly: true, SameSite: http.SameSiteStrictMode,
	})
	g.patience(w, r)(true)
	challenge.WritePage(w, r, enterPath, st.tickets.asks.Wait(visitor(x, r)), to)
}

// enter lets a visitor on who has waited, with a pass; or shows how long there is to wait.
func (g *Gateway) enter(st *state, x *exchange, w http.ResponseWriter, r *http.Request) {
	token, to := challenge.Return(r.URL)
	if _, err := r.Cookie(ticket.ProbeCookie(x.secure)); err != nil {
		g.end(st, x, w, r, guard.Denial(guard.ChallengeFailed, "Cookie", "", "the cookie that came with the page: a pass is one, too"))
		return
	}
	f := visitor(x, r)
	pause, d := st.tickets.asks.Waited(r.Context(), f, token, st.tickets.once)
	switch {
	case d.Denied() && (pause == challenge.Pause{} || !challenge.WantsPage(r)):
		g.end(st, x, w, r, d)
		return
	case d.Denied():
		g.obs.record(st, x, r, d, guard.Enforce)
		challenge.WritePage(w, r, enterPath, pause, to)
		return
	}
	cookie, err := st.tickets.guard.Pass(r.Context(), f.Now, x.secure, f.Bind)
	if err != nil {
		g.end(st, x, w, r, guard.Denial(guard.TicketUnavailable, "ticket", err.Error(), "room, and a store that answers"))
		return
	}
	x.route.stats.count(d.Reason, guard.Enforce)
	http.SetCookie(w, cookie)
	h := w.Header()
	h["Cache-Control"], h["Referrer-Policy"], h["Location"] = []string{"no-store"}, []string{"no-referrer"}, []string{to.String()}
	w.WriteHeader(http.StatusSeeOther)
}

// visitor is what challenges judge the request's client by.
func visitor(x *exchange, r *http.Request) challenge.Facts {
	return challenge.Facts{Now: time.Now(), Client: x.client, Bind: ticket.BindTo(x.client, r.UserAgent()), Score: score(r, false) + x.harder}
}
