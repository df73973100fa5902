package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/budget"
	"github.com/moat-gateway/moat/wire"
)

// tunnel joins the client's connection to the upstream's after the upstream has agreed
// to switch protocols (RFC 9110 section 7.8), for a WebSocket most of all.
func (g *Gateway) tunnel(st *state, x *exchange, w http.ResponseWriter, r *http.Request, res *http.Response) {
	back, ok := res.Body.(io.ReadWriteCloser)
	agreed := res.Header.Get("Upgrade")
	if !ok || x.upgrade == "" || !strings.EqualFold(agreed, x.upgrade) {
		res.Body.Close() //nolint:errcheck // it will not be used.
		g.end(st, x, w, r, guard.Denial(guard.UpstreamBadResponse, "Upgrade", agreed, x.upgrade))
		return
	}
	defer back.Close() //nolint:errcheck // both directions have ended.
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		g.end(st, x, w, r, guard.Denial(guard.UpstreamBadResponse, "Upgrade", err.Error(), "HTTP/1.1 on both sides"))
		return
	}
	defer conn.Close() //nolint:errcheck // as above.
	wire.Passthrough(conn)
	defer g.obs.tunnels.add(conn)()

	h := w.Header()
	for k, v := range res.Header {
		if !isCORSHeader(k) {
			h[k] = v
		}
	}
	head := &strings.Builder{}
	fmt.Fprintf(head, "HTTP/1.1 %03d %s\r\n", res.StatusCode, http.StatusText(res.StatusCode))
	h.Write(head) //nolint:errcheck // a strings.Builder takes everything.
	head.WriteString("\r\n")
	if _, err = io.WriteString(conn, head.String()); err != nil {
		return
	}
	x.route.stats.count(guard.OK, guard.Enforce)

	ended := make(chan struct{}, 2)
	go func() {
		// What the client sent early is in the server's buffer.
		if n := buffered.Reader.Buffered(); n > 0 {
			early, peekErr := buffered.Peek(n)
			if _, wErr := back.Write(early); peekErr != nil || wErr != nil {
				ended <- struct{}{}
				return
			}
			x.budget.Passed(int64(n))
		}
		pass(back, conn, x.budget) //nolint:errcheck // whichever way it ends, it has ended.
		ended <- struct{}{}
	}()
	go func() {
		pass(conn, back, x.budget) //nolint:errcheck // as above.
		ended <- struct{}{}
	}()
	// When one side is done the other has nobody left to talk to.
	<-ended
}

// pass copies until one side ends, and counts what passes if somebody wants to know.
func pass(dst io.Writer, src io.Reader, gr *budget.Grant) error {
	if !gr.CountsBytes() {
		_, err := io.Copy(dst, src) // which the kernel may do alone
		return err
	}
	_, err := io.Copy(dst, gr.Count(io.NopCloser(src)))
	return err
}
