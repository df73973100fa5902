package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/moat-gateway/moat/guard/egress"
)

// The open proxy of the article fetches whatever a URL names. It truly does, but in a world
// of its own: a network that has the visitor's lab, a partner on the Internet, and what
// only the bank's own servers reach. No request leaves the process, and no name is asked for
// anywhere else.
//
//	rates.example          203.0.113.10      a partner: /rates, /page, /moved?to=URL, /big
//	inner.rates.example    10.0.0.5          a partner's name that leads inside
//	admin.bank.internal    10.0.0.5          the bank's admin page: /, /pay?amount=
//	metadata.internal      169.254.169.254   the cloud's metadata, with a credential
//	(loopback)             127.0.0.1         what only this machine should see: /debug
var innerNames = map[string]netip.Addr{
	"rates.example":       partnerAddr,
	"inner.rates.example": adminAddr,
	"admin.bank.internal": adminAddr,
	"metadata.internal":   metadataAddr,
	"localhost":           loopbackAddr,
}

var (
	// partnerAddr is of a network for documentation: it is nobody's.
	partnerAddr  = netip.MustParseAddr("203.0.113.10")
	adminAddr    = netip.MustParseAddr("10.0.0.5")
	metadataAddr = netip.MustParseAddr("169.254.169.254")
	loopbackAddr = netip.MustParseAddr("127.0.0.1")
	// labAddr is that of the lab's own hosts, as seen from inside.
	labAddr = netip.MustParseAddr("203.0.113.1")
)

var errNetworkEnds = errors.New("the lab's network ends here")

// named is the address that a name has in that network.
func (v *visitor) named(host string) (a netip.Addr, ok bool) {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if a, ok = innerNames[host]; ok {
		return a, true
	}
	for _, origin := range v.origins {
		if u, err := url.Parse(origin); err == nil && u.Hostname() == host {
			return labAddr, true
		}
	}
	return a, false
}

// parseAddr reads an address in any of the spellings that resolvers take: 10.0.0.5, 10.5,
// 167772165, 0xa000005, [::ffff:a00:5]. A list of forbidden texts never has them all.
func parseAddr(host string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap(), true
	}
	parts := strings.Split(host, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var sum uint64
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 0, 32)
		left := 4 - i // bytes that the last part stands for
		if i < len(parts)-1 {
			left = 1
		}
		if err != nil || strings.Contains(part, "_") || n >= 1<<(8*left) {
			return netip.Addr{}, false
		}
		if i < len(parts)-1 {
			n <<= 8 * (3 - i)
		}
		sum += n
	}
	return netip.AddrFrom4([4]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}), true
}

// dial connects to a name or an address of that network.
func (v *visitor) dial(ctx context.Context, _, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	a, ok := v.named(host)
	if !ok {
		a, ok = parseAddr(host)
	}
	if !ok {
		return nil, fmt.Errorf("%.100q: no such host: %w", host, errNetworkEnds)
	}
	c, _ := ctx.Value(callKey{}).(call)
	h := v.inside(c, a)
	if h == nil {
		return nil, fmt.Errorf("%s: no answer: %w", a, errNetworkEnds)
	}
	client, server := net.Pipe()
	s := &http.Server{Handler: h, ReadHeaderTimeout: maxFetch, WriteTimeout: maxFetch}
	s.SetKeepAlivesEnabled(false)      // a connection belongs to one request
	go s.Serve(&oneConn{conn: server}) //nolint:errcheck // it ends with the connection
	return client, nil
}

// partners are the addresses of that network that count as public, though they are nobody's.
var partners = netip.MustParsePrefix("203.0.113.0/24")

// confineFetch gives what the gate fetches that network in the place of the machine's.
func (v *visitor) confineFetch(p *egress.Policy) {
	p.Dial = v.dial
	p.DangerouslyAllowNetworks = append(slices.Clone(p.DangerouslyAllowNetworks), partners)
	p.Resolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go v.serveNames(server)
		return client, nil
	}}
}

// serveNames answers a question for a name as a name server does over TCP (RFC 1035
// section 4.2.2).
func (v *visitor) serveNames(conn net.Conn) {
	defer conn.Close()                             //nolint:errcheck // it has said everything
	_ = conn.SetDeadline(time.Now().Add(maxFetch)) // a pipe has deadlines
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return
	}
	question := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, question); err != nil {
		return
	}
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return
	}
	q := m.Questions[0]
	m.Response, m.Additionals = true, nil
	switch a, ok := v.named(q.Name.String()); {
	case !ok:
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
			Body:   &dnsmessage.AResource{A: a.As4()},
		}}
	}
	answer, err := m.Pack()
	if err != nil {
		return
	}
	_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)) //nolint:gosec // one answer is short
}

// oneConn is a listener for a connection that is there already.
type oneConn struct{ conn net.Conn }

func (l *oneConn) Accept() (net.Conn, error) {
	if l.conn == nil {
		return nil, net.ErrClosed
	}
	c := l.conn
	l.conn = nil
	return c, nil
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

// inside is who answers at an address; nil is nobody.
func (v *visitor) inside(c call, a netip.Addr) http.Handler {
	mux := http.NewServeMux()
	text := func(pattern, contentType, body string) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			_, _ = io.WriteString(w, body)
		})
	}
	// The call is that of the request which had it fetched: who fetched it, the API or a
	// gate that should not have, is the same to the ledger.
	called := func(r *http.Request) *http.Request {
		return r.WithContext(context.WithValue(r.Context(), callKey{}, c))
	}
	secret := func(pattern, contentType, body, did string) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			v.ran(called(r), did)
			w.Header().Set("Content-Type", contentType)
			_, _ = io.WriteString(w, body)
		})
	}
	switch a {
	case labAddr:
		world := v.lab.world(v)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			// What the page asks the lab is for the page alone, and whoever may read the proxy's
			// answers would read it, too.
			if strings.HasPrefix(r.URL.Path, "/.lab/") && r.URL.Path != "/.lab/hop" {
				refuse(w, http.StatusForbidden, "the lab's own: only its page may ask for this")
				return
			}
			world.ServeHTTP(w, r)
		})
	case partnerAddr:
		text("GET /rates", "application/json", `{"EUR": 1.08, "GBP": 1.27}`)
		text("GET /page", "text/html", "<script>document.title = 'a page of the partner, run as the one who fetched it'</script>")
		mux.HandleFunc("GET /big", func(w http.ResponseWriter, _ *http.Request) {
			for range 4 {
				_, _ = w.Write(make([]byte, maxBody))
			}
		})
		mux.HandleFunc("GET /moved", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Query().Get("to"), http.StatusFound) //nolint:gosec // nobody but the proxy gets here, and it stays in this network
		})
	case adminAddr:
		secret("GET /", "text/html", "<title>The bank's admin page</title><p>Whoever gets here is one of us. /pay?amount= pays out.", "showed the admin page")
		mux.HandleFunc("GET /pay", func(w http.ResponseWriter, r *http.Request) { v.pay(w, called(r)) })
	case metadataAddr:
		secret("GET /", "text/plain", "latest/meta-data/iam/security-credentials/bank-api\n", "listed the cloud's metadata")
		secret("GET /latest/meta-data/iam/security-credentials/bank-api", "application/json",
			`{"AccessKeyId": "LAB-TOY-KEY", "SecretAccessKey": "not-a-real-secret-but-yours-would-be"}`, "gave away the machine's credentials")
	case loopbackAddr:
		secret("GET /", "text/plain", "The API's own machine. /debug is for the operator.\n", "showed the machine's own page")
		secret("GET /debug", "text/plain", "DATABASE_URL=postgres://bank:toy-password@db.bank.internal/bank\n", "gave away the database's password")
	default:
		return nil
	}
	return mux
}

// maxFetch bounds what the proxy spends on a URL.
const maxFetch = 5 * time.Second

// proxy is the article's: it fetches any URL, follows redirects, and passes on what comes.
func (v *visitor) proxy(w http.ResponseWriter, r *http.Request) {
	target := r.URL.Query().Get("url")
	ctx, cancel := context.WithTimeout(r.Context(), maxFetch)
	defer cancel()
	out, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil) //nolint:gosec // this is the proxy that the lesson is about; dial keeps it in the lab
	if err != nil {
		refuse(w, http.StatusBadRequest, "url: not a URL")
		return
	}
	transport := &http.Transport{DialContext: v.dial, DialTLSContext: v.dial, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10}
	res, err := (&http.Client{Transport: transport}).Do(out) //nolint:gosec // see above
	if err != nil {
		refuse(w, http.StatusBadGateway, cut(err.Error()))
		return
	}
	defer res.Body.Close() //nolint:errcheck // it was only read
	v.ran(r, fmt.Sprintf("fetched %s: status %d", cut(out.URL.String()), res.StatusCode))
	w.Header().Set("Content-Type", res.Header.Get("Content-Type"))
	w.WriteHeader(res.StatusCode)
	_, _ = io.Copy(w, io.LimitReader(res.Body, maxBody))
}
