// Package demo shows in the reader's own browser that CORS protects no backend, and
// that a gate does. It runs four servers on the loopback interface:
//
//   - a backend that moves money, with CORS configured correctly and nothing else;
//   - the ledger, which tells what the backend really did;
//   - a friendly page, the one origin that the backend's CORS names;
//   - a stranger's page, on another site, that attacks the backend, and the gate.
//
// The gate itself is not started here: it forwards to BackendURL and lists
// FriendlyOrigin. Of the backend's routes, POST /api/transfer and GET
// /api/delete-note change state; the latter is why a gate must be told that a GET can.
//
// # What matters about browsers
//
// The friendly page, the backend and the gate are on localhost, the stranger on
// 127.0.0.1: ports do not make a site, host names do, so only the stranger is
// cross-site. Both names are loopback, so Local Network Access asks for no permission.
// No attack needs a cookie: the API moves money for whoever asks. A fresh profile of
// Debian's Chromium blocks third-party cookies, and cookies without SameSite are Lax,
// so an attack that needed them would fail for reasons that are not the gate's.
//
// # Trust
//
// The backend is as naked as it looks: it believes everybody, which is the point, and
// only the loopback interface keeps the network out. The ledger and the pages serve
// only their own Host, so that no page can rebind its DNS name to them.
package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Options are what the demo must know beforehand. Gate is required.
type Options struct {
	// Gate is the origin under which browsers reach the gate, such as
	// "http://localhost:8080". Its host cannot be 127.0.0.1, the stranger's.
	Gate string
	// Admin is the host:port of the gate's admin listener, or "".
	Admin string
	// AnyPort lets the system choose all ports. Without it they are 3000, 3001, 5173
	// and 4000, and the system chooses only where one of those is taken.
	AnyPort bool
}

// Addresses are host:port, as a browser should use them.
type Addresses struct{ Gate, Admin, Backend, Ledger, Friendly, Stranger string }

// Demo is the running demo.
type Demo struct {
	addresses Addresses
	origins   origins

	cancel  context.CancelFunc
	servers []*http.Server
	serving sync.WaitGroup
	closed  func() error
}

// origins are scheme://host:port, as the pages' scripts and their CSP need them.
type origins struct{ Gate, Backend, Ledger, Friendly, Stranger string }

// ports are the preferred ones; 0 leaves the choice to the system.
type ports struct{ backend, ledger, friendly, stranger int }

// Start opens all listeners and serves. The error says which of them could not be
// opened, or what is wrong with the options.
func Start(o Options) (*Demo, error) {
	if o.AnyPort {
		return start(o, ports{})
	}
	return start(o, ports{backend: 3000, ledger: 3001, friendly: 5173, stranger: 4000})
}

func start(o Options, p ports) (*Demo, error) {
	gate, err := parseGate(o.Gate)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	d := &Demo{cancel: cancel}
	d.closed = sync.OnceValue(d.close)

	var open []*listener
	for _, want := range []struct {
		name, host string
		port       int
	}{
		{"backend", "localhost", p.backend},
		{"ledger", "localhost", p.ledger},
		{"friendly page", "localhost", p.friendly},
		{"stranger's page", "127.0.0.1", p.stranger},
	} {
		l, err := listen(ctx, want.host, want.port)
		if err != nil {
			for _, l := range open {
				l.close()
			}
			cancel()
			return nil, fmt.Errorf("demo: %s: %w", want.name, err)
		}
		open = append(open, l)
	}
	backend, ledger, friendly, stranger := open[0], open[1], open[2], open[3]
	d.addresses = Addresses{gate.Host, o.Admin, backend.address, ledger.address, friendly.address, stranger.address}
	d.origins = origins{gate.String(), backend.origin(), ledger.origin(), friendly.origin(), stranger.origin()}

	book := newLedger()
	d.serve(ctx, backend, newBackend(book, d.origins.Friendly))
	d.serve(ctx, ledger, onlyHost(ledger, ledgerHandler(book, d.origins)))
	d.serve(ctx, friendly, onlyHost(friendly, pageHandler("friendly", d.origins)))
	d.serve(ctx, stranger, onlyHost(stranger, pageHandler("stranger", d.origins)))
	return d, nil
}

// parseGate checks what goes into the pages' Content-Security-Policy.
func parseGate(gate string) (*url.URL, error) {
	u, err := url.Parse(gate)
	switch {
	case err != nil:
		return nil, fmt.Errorf("demo: gate %q: %w", gate, err)
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "", u.Scheme+"://"+u.Host != gate,
		strings.Trim(u.Host, "abcdefghijklmnopqrstuvwxyz0123456789.-:[]") != "":
		return nil, fmt.Errorf("demo: gate %q: not an origin; write it as http://localhost:8080", gate)
	case u.Hostname() == "127.0.0.1":
		return nil, fmt.Errorf("demo: gate %q: the stranger's page is on 127.0.0.1, and must be of another site; call the gate localhost", gate)
	}
	return u, nil
}

// Addresses returns where everything is.
func (d *Demo) Addresses() Addresses { return d.addresses }

// BackendURL is the gate's upstream. It has an address in place of a name, so that a
// gate need not resolve localhost, which has two.
func (d *Demo) BackendURL() string {
	_, port, _ := net.SplitHostPort(d.addresses.Backend)
	return "http://127.0.0.1:" + port
}

// FriendlyOrigin is the one origin that the gate should list.
func (d *Demo) FriendlyOrigin() string { return d.origins.Friendly }

// Close ends the streams, lets other requests under way finish for up to a second, and
// returns when nothing listens or runs any more. Later calls return the same error.
func (d *Demo) Close() error { return d.closed() }

func (d *Demo) close() error {
	d.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	errs := make([]error, len(d.servers))
	var closing sync.WaitGroup
	for i, s := range d.servers {
		closing.Go(func() {
			if s.Shutdown(ctx) != nil {
				// A connection that a browser opened ahead of need has sent nothing,
				// and is not worth the wait.
				errs[i] = s.Close()
			}
		})
	}
	closing.Wait()
	d.serving.Wait()
	return errors.Join(errs...)
}

// serve serves h on all of l's sockets until Close.
func (d *Demo) serve(ctx context.Context, l *listener, h http.Handler) {
	s := &http.Server{
		Handler:           http.MaxBytesHandler(h, maxBody),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	d.servers = append(d.servers, s)
	for _, socket := range l.sockets {
		d.serving.Go(func() {
			// Serve returns when the server is closed; a socket that fails earlier
			// takes no other server with it.
			s.Serve(socket) //nolint:errcheck // the page says that its server does not answer.
		})
	}
}

// maxBody bounds every request's body.
const maxBody = 16 << 10

// listener is the sockets of one server.
type listener struct {
	address string // host:port for browsers
	port    string
	sockets []net.Listener
}

func (l *listener) origin() string { return "http://" + l.address }

func (l *listener) close() {
	for _, s := range l.sockets {
		s.Close() //nolint:errcheck // nobody was served yet.
	}
}

// listen opens the loopback sockets that host means, on the preferred port, or on one
// of the system's choice if that is taken or 0.
//
// localhost is two addresses, and browsers may try ::1 first. A port counts as taken if
// either is: otherwise the page at http://localhost:5173 could be that of the Vite that
// somebody left running on [::1]:5173. A machine without IPv6 gets 127.0.0.1 alone.
func listen(ctx context.Context, host string, preferred int) (*listener, error) {
	var err error
	for _, port := range []int{preferred, 0, 0, 0} {
		var l *listener
		if l, err = listenOn(ctx, host, port); err == nil {
			return l, nil
		}
	}
	return nil, err
}

func listenOn(ctx context.Context, host string, port int) (*listener, error) {
	var lc net.ListenConfig
	v4, err := lc.Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	_, chosen, err := net.SplitHostPort(v4.Addr().String())
	if err != nil {
		v4.Close() //nolint:errcheck // nobody was served yet.
		return nil, err
	}
	l := &listener{address: host + ":" + chosen, port: chosen, sockets: []net.Listener{v4}}
	if host != "localhost" || !hasIPv6(ctx) {
		return l, nil
	}
	v6, err := lc.Listen(ctx, "tcp6", net.JoinHostPort("::1", chosen))
	if err != nil {
		l.close()
		return nil, err
	}
	l.sockets = append(l.sockets, v6)
	return l, nil
}

func hasIPv6(ctx context.Context) bool {
	var lc net.ListenConfig
	s, err := lc.Listen(ctx, "tcp6", "[::1]:0")
	if err != nil {
		return false
	}
	return s.Close() == nil
}

// onlyHost serves requests for the listener's own name and sends other loopback names
// there. Any other Host is a page that has rebound its DNS name to this machine: it
// would be of the same origin as what it reads.
func onlyHost(l *listener, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Host {
		case l.address:
			next.ServeHTTP(w, r)
		case "localhost:" + l.port, "127.0.0.1:" + l.port, "[::1]:" + l.port:
			http.Redirect(w, r, l.origin()+r.URL.Path, http.StatusTemporaryRedirect) //nolint:gosec // whatever the path, it begins with "/", and the origin is ours.
		default:
			http.Error(w, "this is "+l.origin()+", and serves no other Host", http.StatusMisdirectedRequest)
		}
	})
}
