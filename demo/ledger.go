package demo

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	opening  = 1000 // what alice begins with; the others have nothing
	noteMax  = 10   // the notes are 1 to noteMax
	historyN = 200  // requests that the ledger remembers
)

// Entry is a request that reached the backend.
type Entry struct {
	// Seq numbers requests from 1, and goes on after a reset.
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
	// Method, Path, Origin and Site (Sec-Fetch-Site) are the request's, cut to 200 bytes.
	Method string `json:"method"`
	Path   string `json:"path"`
	Origin string `json:"origin"`
	Site   string `json:"site"`
	Cookie bool   `json:"cookie"`
	// Via is "moat" or "bare".
	Via string `json:"via"`
	// Ran is false for a preflight, which the CORS middleware answers.
	Ran bool `json:"ran"`
	// Did says what the backend did.
	Did string `json:"did"`
}

// Reading is what GET /ledger answers.
type Reading struct {
	Balances map[string]int64 `json:"balances"`
	// Opening are the balances after a reset.
	Opening map[string]int64 `json:"opening"`
	// Notes are the ids of those not deleted.
	Notes []int `json:"notes"`
	// Runs counts how often each handler ran since the last reset, by path.
	Runs map[string]int `json:"runs"`
	// Preflights counts those that the backend answered since the last reset.
	Preflights int `json:"preflights"`
	// Resets counts the resets.
	Resets int `json:"resets"`
	// Seq is that of the last request.
	Seq uint64 `json:"seq"`
	// Requests are the last ones, oldest first.
	Requests []Entry `json:"requests"`
}

// ledger is the embedded store: the money, the notes, and what was done to them. Its
// size is bounded: accounts, notes and paths are fixed, and the history is cut.
type ledger struct {
	mu         sync.Mutex
	balances   map[string]int64
	notes      []int
	runs       map[string]int
	preflights int
	resets     int
	seq        uint64
	history    []Entry
}

func newLedger() *ledger {
	l := &ledger{resets: -1}
	l.reset()
	return l
}

func openingBalances() map[string]int64 {
	return map[string]int64{"alice": opening, "bob": 0, "mallory": 0}
}

func (l *ledger) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.balances = openingBalances()
	l.notes = nil
	for id := range noteMax {
		l.notes = append(l.notes, id+1)
	}
	l.runs = make(map[string]int)
	l.preflights = 0
	l.resets++
	l.history = nil
}

// record writes e down, with mu held.
func (l *ledger) record(e Entry, did string) {
	l.seq++
	e.Seq, e.Did = l.seq, did
	if e.Ran {
		l.runs[e.Path]++
	} else {
		l.preflights++
	}
	if len(l.history) == historyN {
		l.history = slices.Delete(l.history, 0, 1)
	}
	l.history = append(l.history, e)
}

// note records a request that changes nothing.
func (l *ledger) note(e Entry, did string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.record(e, did)
}

// transfer moves money from alice, who is asked for no proof that it is her. It returns
// what it did, and whether it did it.
func (l *ledger) transfer(e Entry, to string, amount int64) (did string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, known := l.balances[to]
	switch {
	case !known || to == "alice":
		did = "moved nothing: no such payee"
	case amount < 1:
		did = "moved nothing: no amount"
	case amount > l.balances["alice"]:
		did = fmt.Sprintf("moved nothing: alice has only %d left", l.balances["alice"])
	default:
		l.balances["alice"] -= amount
		l.balances[to] += amount
		did, ok = fmt.Sprintf("moved %d from alice to %s", amount, to), true
	}
	l.record(e, did)
	return did, ok
}

// deleteNote deletes a note for good, until the reset.
func (l *ledger) deleteNote(e Entry, id int) (did string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.notes, id)
	if i < 0 {
		did = "deleted nothing: no such note"
	} else {
		l.notes = slices.Delete(l.notes, i, i+1)
		did, ok = fmt.Sprintf("deleted note %d", id), true
	}
	l.record(e, did)
	return did, ok
}

// read returns a copy of everything, with those requests whose Seq is above since.
func (l *ledger) read(since uint64) Reading {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := Reading{
		Balances: maps.Clone(l.balances), Opening: openingBalances(),
		Notes: append([]int{}, l.notes...), Runs: maps.Clone(l.runs), Preflights: l.preflights,
		Resets: l.resets, Seq: l.seq, Requests: []Entry{},
	}
	for _, e := range l.history {
		if e.Seq > since {
			r.Requests = append(r.Requests, e)
		}
	}
	return r
}

// ledgerHandler serves the truth on an origin of its own, so that reading it neither
// counts as a request to the backend nor passes the gate.
//
// Every page may read it: the stranger's page must, to show what it did, and there is
// nothing in it but play money. Resetting it is for the demo's own pages, and for
// clients that are no browser: here the server refuses, since CORS would not.
func ledgerHandler(l *ledger, o origins) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ledger", func(w http.ResponseWriter, r *http.Request) {
		var since uint64
		if v := r.URL.Query().Get("since"); v != "" {
			n, err := strconv.ParseUint(v, 10, 64)
			if err != nil {
				http.Error(w, "since: not a number of a request", http.StatusBadRequest)
				return
			}
			since = n
		}
		writeJSON(w, http.StatusOK, l.read(since))
	})
	mux.HandleFunc("POST /reset", func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Origin") {
		case "", o.Friendly, o.Stranger:
		default:
			http.Error(w, "only the demo's own pages reset the ledger", http.StatusForbidden)
			return
		}
		l.reset()
		writeJSON(w, http.StatusOK, l.read(0))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		mux.ServeHTTP(w, r)
	})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) //nolint:errcheck,errchkjson // a client that is gone misses nothing.
}
