package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// The backend's paths.
const (
	dataPath     = "/api/data"
	transferPath = "/api/transfer"
	deletePath   = "/api/delete-note"
	loginPath    = "/api/login"
	streamPath   = "/api/stream"
)

const (
	ticks     = 5
	tickEvery = 400 * time.Millisecond
)

// newBackend is the backend as most are: its CORS is right, and nothing else guards it.
func newBackend(l *ledger, friendly string) http.Handler {
	b := backend{l}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+dataPath, b.data)
	mux.HandleFunc("POST "+transferPath, b.transfer)
	mux.HandleFunc("GET "+deletePath, b.deleteNote)
	mux.HandleFunc("GET "+loginPath, b.login)
	mux.HandleFunc("GET "+streamPath, b.stream)
	return naiveCORS(l, friendly, mux)
}

// naiveCORS is CORS as its many middlewares do it, and nothing is wrong with it: one
// origin, compared exactly, Vary set, preflights answered. It tells the browser who may
// read. It refuses nobody, because CORS has no such step: whatever is no preflight goes
// on to the handler, and the handler works.
func naiveCORS(l *ledger, allowed string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Add("Vary", "Origin")
		match := r.Header.Get("Origin") == allowed
		if match {
			h.Set("Access-Control-Allow-Origin", allowed)
		}
		if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
			next.ServeHTTP(w, r)
			return
		}
		did := "answered a preflight: not approved"
		if match {
			did = "answered a preflight: approved"
			h.Set("Access-Control-Allow-Methods", "GET, POST")
			h.Set("Access-Control-Allow-Headers", "Content-Type")
		}
		l.note(entry(r), did)
		w.WriteHeader(http.StatusNoContent)
	})
}

// entry is what the ledger keeps of a request.
func entry(r *http.Request) Entry {
	e := Entry{
		Time: time.Now(), Method: cut(r.Method), Path: cut(r.URL.Path),
		Origin: cut(r.Header.Get("Origin")), Site: cut(r.Header.Get("Sec-Fetch-Site")),
		Cookie: len(r.CookiesNamed(sessionCookie)) > 0,
		Via:    "bare", Ran: r.Method != http.MethodOptions,
	}
	// moat sets this header on what it forwards. Anybody can, on the bare path: good
	// enough to label the demo's own requests, and nothing depends on it.
	if r.Header.Get("X-Forwarded-Host") != "" {
		e.Via = "moat"
	}
	return e
}

func cut(s string) string { return s[:min(len(s), 200)] }

type backend struct{ ledger *ledger }

// data is the simple read, and stands for work that costs: a query, a model's tokens.
func (b backend) data(w http.ResponseWriter, r *http.Request) {
	b.ledger.note(entry(r), "read the data")
	writeJSON(w, http.StatusOK, map[string]any{"items": []string{"coal", "copper", "grain"}})
}

// transfer moves money for whoever asks. It reads a query, a form, or JSON under any
// content type, as lenient body parsers do: that leniency is why JSON can arrive
// without a preflight.
func (b backend) transfer(w http.ResponseWriter, r *http.Request) {
	to, amount, err := transferOrder(r)
	if err != nil {
		b.ledger.note(entry(r), "moved nothing: the body cannot be read")
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		return
	}
	did, ok := b.ledger.transfer(entry(r), to, amount)
	if !ok {
		writeJSON(w, http.StatusConflict, map[string]string{"error": did})
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"done": did})
}

// transferOrder reads the payee and the amount. The body's word counts before the
// query's.
func transferOrder(r *http.Request) (to string, amount int64, err error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return "", 0, fmt.Errorf("transfer: %w", err)
	}
	order := r.URL.Query()
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case len(body) == 0:
	case media == "application/x-www-form-urlencoded":
		if order, err = url.ParseQuery(string(body)); err != nil {
			return "", 0, fmt.Errorf("transfer: form: %w", err)
		}
	default:
		var o struct {
			To     string `json:"to"`
			Amount int64  `json:"amount"`
		}
		if err = json.Unmarshal(body, &o); err != nil {
			return "", 0, fmt.Errorf("transfer: JSON: %w", err)
		}
		return o.To, o.Amount, nil
	}
	amount, err = strconv.ParseInt(order.Get("amount"), 10, 64)
	if err != nil {
		return "", 0, fmt.Errorf("transfer: amount %q: not a whole number", order.Get("amount"))
	}
	return order.Get("to"), amount, nil
}

// deleteNote is the GET with a side effect: an <img> can trigger it.
func (b backend) deleteNote(w http.ResponseWriter, r *http.Request) {
	// What is no number becomes 0, and no note has that.
	id, _ := strconv.Atoi(r.URL.Query().Get("id"))
	did, ok := b.ledger.deleteNote(entry(r), id)
	if !ok {
		writeJSON(w, http.StatusNotFound, map[string]string{"error": did})
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"done": did})
}

const sessionCookie = "session"

// login sets a cookie as a naked backend does: without SameSite, which Chromium takes
// as Lax (with POST navigations excepted for two minutes) and others take as None. No
// endpoint asks for it.
func (b backend) login(w http.ResponseWriter, r *http.Request) {
	b.ledger.note(entry(r), "set a session cookie")
	//nolint:gosec // it lacks Secure and SameSite on purpose, see above.
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Value: "alice", Path: "/", HttpOnly: true})
	writeJSON(w, http.StatusOK, map[string]string{"done": "logged in as alice"})
}

// stream sends server-sent events: a tick at once and after each pause, then "done".
func (b backend) stream(w http.ResponseWriter, r *http.Request) {
	b.ledger.note(entry(r), "streamed ticks")
	w.Header().Set("Content-Type", "text/event-stream")
	rc := http.NewResponseController(w)
	for i := range ticks {
		if i > 0 {
			select {
			case <-time.After(tickEvery):
			case <-r.Context().Done():
				return
			}
		}
		fmt.Fprintf(w, "data: tick %d of %d\n\n", i+1, ticks)
		if rc.Flush() != nil {
			return
		}
	}
	fmt.Fprint(w, "event: done\ndata: done\n\n")
}
