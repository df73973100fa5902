package lab

import (
	"crypto/rand"
	"encoding/base32"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Books are the bank's: what everybody has, the notes that alice keeps there, and what the
// bank owes for calls of an AI model.
type Books struct {
	Alice   int   `json:"alice"`
	Mallory int   `json:"mallory"`
	Notes   []int `json:"notes"`
	Calls   int   `json:"calls"`
	Spent   int   `json:"spent"` // in cents
}

func newBooks() Books { return Books{Alice: 1000, Notes: []int{1, 2, 3}} }

// visitor is one reader's world. Nothing of it is shared with another's.
type visitor struct {
	id     string
	lab    *Lab
	ledger *ledger
	share  share
	// reading is as much again for what the page only reads.
	reading share
	// origins are those of the visitor's world.
	origins map[Role]string
	// session is what the API knows alice by, and csrf the token of its own forms.
	session, csrf string

	// keys are what the visitor's moat.yaml refers to.
	keys *keys
	// front is where the lab's own client comes in, and backend where the gate forwards to.
	front, backend inner
	// inForce is the gate; nil until somebody has come by it. configuring is held while
	// another one takes its place.
	inForce     atomic.Pointer[inForce]
	configuring sync.Mutex
	listening   atomic.Int32
	// turn is held by what takes time.
	turn chan struct{}

	mu      sync.Mutex
	seen    time.Time
	books   Books
	rules   []Rule
	cookies []string
	tally   tally
	// accepted is the last moat.yaml of the reader's that had no fault, by lesson.
	accepted map[string]string
	progress map[string]progress
}

func newVisitor(l *Lab, id string) *visitor {
	now := time.Now()
	return &visitor{
		id: id, lab: l, origins: l.o.Names.Origins(id), ledger: newLedger(), share: share{shared: l.o.Names.shared}, reading: share{shared: l.o.Names.shared}, session: randomID(), csrf: randomID(), keys: newKeys(now), seen: now, books: newBooks(),
		turn: make(chan struct{}, 1), accepted: map[string]string{}, progress: map[string]progress{},
	}
}

// another is a world like this one in which nothing has happened yet.
func (v *visitor) another() *visitor {
	o := newVisitor(v.lab, v.id)
	o.session, o.csrf, o.keys = v.session, v.csrf, v.keys
	return o
}

// close ends what listens for the visitor.
func (v *visitor) close() {
	v.front.close()
	v.backend.close()
}

// inner is a server for this process alone, on a port that the system chooses. It begins to
// listen when somebody needs it.
type inner struct {
	mu       sync.Mutex
	server   *http.Server
	listener net.Listener
	closed   bool
}

// open returns the address, and listens first if nobody has asked for it before.
func (i *inner) open(h http.Handler) (address string, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.closed:
		return "", errors.New("this visitor has gone")
	case i.server != nil:
		return i.listener.Addr().String(), nil
	}
	if i.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil { //nolint:noctx // it does not wait
		return "", err
	}
	i.server = newServer(h)
	i.server.IdleTimeout = 5 * time.Second // who asked was a gate that another has replaced, or a run that is over
	go i.server.Serve(i.listener)          //nolint:errcheck // it ends with the visitor
	return i.listener.Addr().String(), nil
}

func (i *inner) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.closed = true
	if i.server != nil {
		i.listener.Close() //nolint:errcheck // the server does not have it before it serves
		i.server.Close()   //nolint:errcheck // nobody is left who could be told
	}
}

// visitorLetters are those of an identifier: it is a part of a host.
const visitorLetters = "abcdefghijklmnopqrstuvwxyz234567"

const visitorLength = 13 // 65 bits

// randomID is an identifier that nobody guesses.
func randomID() string {
	b := make([]byte, 10)
	rand.Read(b)
	return strings.ToLower(base32.StdEncoding.EncodeToString(b))[:visitorLength]
}

func isVisitor(id string) bool {
	return len(id) == visitorLength && strings.Trim(id, visitorLetters) == ""
}

// begin sets the world up for a run, and returns its number. What the run comes to does not
// depend on those before it, so everybody has what he had at first.
func (v *visitor) begin(rules []Rule, cookies []string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.rules, v.cookies, v.tally, v.books = rules, cookies, tally{}, newBooks()
	return v.ledger.begin()
}

// reset gives everybody what he had.
func (v *visitor) reset() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.books = newBooks()
}

func (v *visitor) rulesInForce() []Rule {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.rules
}

func (v *visitor) booksNow() Books {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.books
}
