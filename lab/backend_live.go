package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// follow calls tell with alice's balance, now and whenever it changes, until ctx ends.
func (v *visitor) follow(ctx context.Context, tell func(balance int) error) {
	beat := time.NewTicker(15 * time.Second) // also tells whether anybody still listens
	defer beat.Stop()
	for told, first := 0, true; ; first = false {
		changed := v.ledger.next() // before the books are read, or a change between the two is missed
		if now := v.booksNow().Alice; first || now != told {
			if tell(now) != nil {
				return
			}
			told = now
		}
		select {
		case <-changed:
		case <-beat.C:
			if tell(told) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// live begins a stream or a socket, unless the visitor has enough of them.
func (v *visitor) live(w http.ResponseWriter, r *http.Request) (ctx context.Context, end func(), ok bool) {
	if !v.share.takeLive() {
		refuse(w, http.StatusServiceUnavailable, fmt.Sprintf("this lab keeps %d streams and sockets open for each visitor: close one", maxLive))
		return nil, nil, false
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // the server's is for a body
	ctx, cancel := context.WithTimeout(r.Context(), maxLife)
	return ctx, func() {
		cancel()
		v.share.releaseLive()
	}, true
}

func whose(r *http.Request) string {
	if origin := r.Header.Get("Origin"); origin != "" {
		return "a page of " + origin
	}
	return "somebody without an Origin"
}

// stream tells the balance as server-sent events.
func (v *visitor) stream(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Type", "text/event-stream")
		return // a stream without its body is nothing
	}
	ctx, end, ok := v.live(w, r)
	if !ok {
		return
	}
	defer end()
	v.ran(r, "opened a stream of alice's balance for "+whose(r))
	w.Header().Set("Content-Type", "text/event-stream")
	rc := http.NewResponseController(w)
	v.follow(ctx, func(balance int) error {
		_ = rc.SetWriteDeadline(time.Now().Add(maxWrite))
		if _, err := fmt.Fprintf(w, "data: {\"balance\": %d}\n\n", balance); err != nil {
			return err
		}
		return rc.Flush()
	})
}

// socket is a WebSocket that believes in the cookie, and in no Origin. CORS has no say about
// it, and no preflight comes before it.
func (v *visitor) socket(w http.ResponseWriter, r *http.Request) {
	ctx, end, ok := v.live(w, r)
	if !ok {
		return
	}
	defer end()
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") { // before the page hears of it
		v.ran(r, "opened a socket that tells alice's balance, for "+whose(r))
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return // it has answered
	}
	defer conn.CloseNow() //nolint:errcheck // it may be closed already
	conn.SetReadLimit(4 << 10)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		v.obey(ctx, r, conn)
	}()
	v.follow(ctx, func(balance int) error {
		inTime, done := context.WithTimeout(ctx, maxWrite)
		defer done()
		return conn.Write(inTime, websocket.MessageText, fmt.Appendf(nil, `{"balance": %d}`, balance))
	})
}

// obey moves money for the messages that ask for it.
func (v *visitor) obey(ctx context.Context, r *http.Request, conn *websocket.Conn) {
	for {
		_, message, err := conn.Read(ctx)
		if err != nil {
			return
		}
		var order struct {
			Amount int `json:"amount"`
		}
		if v.share.take(time.Now()) != "" {
			return // too fast
		}
		v.share.release()
		if json.Unmarshal(message, &order) == nil && order.Amount != 0 {
			v.ran(r, v.transfer(order.Amount)+", as a message on the socket of "+whose(r)+" said")
		}
	}
}
