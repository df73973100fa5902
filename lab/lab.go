package lab

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"golang.org/x/net/netutil"
)

// Options say what a Lab is.
type Options struct {
	Names Names
	// Lessons are those that it teaches.
	Lessons []Lesson
	// TLS is what the listeners speak, or nil.
	TLS *tls.Config
	Log *slog.Logger
}

// Lab is an http.Handler for all hosts of its names.
type Lab struct {
	o        Options
	visitors *visitors
	front    http.Handler // the front page of a shared lab
	// working bounds how much is compiled and played at once, whoever asks.
	working chan struct{}
}

// New makes a Lab. Serve it.
func New(o Options) *Lab {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	l := &Lab{o: o, working: make(chan struct{}, 4)}
	l.visitors = newVisitors(l)
	l.front = l.door()
	return l
}

// maxConnections bounds how many connections a listener holds. Each tab keeps a stream open.
const maxConnections = 4096

// newServer is a server whose clients cannot hold it up. An answer may take as long as it
// likes, for the ledger is streamed.
func newServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // clients write half of what stands there
	}
}

// Serve answers on the listeners until ctx ends.
func (l *Lab) Serve(ctx context.Context, listeners ...net.Listener) error {
	s := newServer(l)
	s.BaseContext = func(net.Listener) context.Context { return ctx }
	defer l.visitors.close()
	failed := make(chan error, len(listeners))
	for _, listener := range listeners {
		listener = netutil.LimitListener(listener, maxConnections)
		if l.o.TLS != nil {
			listener = tls.NewListener(listener, l.o.TLS)
		}
		go func() { failed <- s.Serve(listener) }()
	}
	select {
	case err := <-failed:
		s.Close() //nolint:errcheck // the first error is the one that says why
		return err
	case <-ctx.Done():
		return s.Close()
	}
}

// ServeHTTP answers for the role whose host it is, in the world of the visitor whose host it is.
func (l *Lab) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Nobody holds an answer up for ever. What is streamed, and the gate, set times of their own.
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute)) //nolint:errcheck // a recorder in a test has none
	defer l.givesUp()
	if l.o.Names.isDoor(r.Host) {
		l.front.ServeHTTP(w, r)
		return
	}
	role, id, ok := l.o.Names.Find(r.Host)
	if !ok {
		http.Error(w, fmt.Sprintf("%.100q is no host of this lab. It is at %s", r.Host, l.o.Names.Door()), http.StatusMisdirectedRequest)
		return
	}
	v := l.visitors.find(id, time.Now())
	if v == nil {
		http.Error(w, "There is no such visitor, or no longer. Begin at "+l.o.Names.Door(), http.StatusNotFound)
		return
	}
	l.serve(w, r, v, role)
}

// givesUp tells of a fault in the lab, and ends the connection.
func (l *Lab) givesUp() {
	why := recover()
	if why == nil {
		return
	}
	if why != http.ErrAbortHandler { //nolint:errorlint // it is the value that net/http itself compares
		l.o.Log.Error("a fault in the lab", slog.Any("panic", why), slog.String("stack", string(debug.Stack())))
	}
	panic(http.ErrAbortHandler)
}

// world is the lab of one visitor, whoever asks.
func (l *Lab) world(v *visitor) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if role, _, ok := l.o.Names.Find(r.Host); ok {
			l.serve(w, r, v, role)
		}
	})
}

func (l *Lab) serve(w http.ResponseWriter, r *http.Request, v *visitor, role Role) {
	if role == RoleAPI || role == RoleGate {
		l.serveAPI(w, r, v, role)
		return
	}
	l.servePage(w, r, v, role)
}
