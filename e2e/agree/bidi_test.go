package agree

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// bidi is a connection to a browser that speaks WebDriver BiDi
// (https://w3c.github.io/webdriver-bidi/).
type bidi struct {
	conn *websocket.Conn

	mu      sync.Mutex
	next    int
	waiting map[int]chan bidiMessage
	gone    error
	hear    func(method string, params json.RawMessage)
}

// bidiMessage is what the browser says: an answer to a command, or an event.
type bidiMessage struct {
	ID      int             `json:"id"`
	Type    string          `json:"type"`
	Method  string          `json:"method"`
	Params  json.RawMessage `json:"params"`
	Result  json.RawMessage `json:"result"`
	Error   string          `json:"error"`
	Message string          `json:"message"`
}

// dialBiDi connects; hear is called with each event, one after another.
func dialBiDi(ctx context.Context, url string, hear func(method string, params json.RawMessage)) (*bidi, error) {
	conn, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(-1)
	b := &bidi{conn: conn, waiting: map[int]chan bidiMessage{}, hear: hear}
	go b.listen()
	return b, nil
}

func (b *bidi) listen() {
	for {
		_, text, err := b.conn.Read(context.Background())
		var m bidiMessage
		if err == nil {
			err = json.Unmarshal(text, &m)
		}
		if err != nil {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.gone = err
			for _, w := range b.waiting {
				close(w)
			}
			return
		}
		if m.Type == "event" {
			b.hear(m.Method, m.Params)
			continue
		}
		b.mu.Lock()
		w := b.waiting[m.ID]
		delete(b.waiting, m.ID)
		b.mu.Unlock()
		if w != nil {
			w <- m
		}
	}
}

// call gives a command and waits for its result, which it puts where result points to,
// unless that is nil.
func (b *bidi) call(ctx context.Context, method string, params map[string]any, result any) error {
	if params == nil {
		params = map[string]any{}
	}
	answer := make(chan bidiMessage, 1)
	b.mu.Lock()
	if b.gone != nil {
		b.mu.Unlock()
		return fmt.Errorf("%s: %w", method, b.gone)
	}
	b.next++
	id := b.next
	b.waiting[id] = answer
	b.mu.Unlock()
	text, err := json.Marshal(map[string]any{"id": id, "method": method, "params": params})
	if err != nil {
		return err
	}
	if err := b.conn.Write(ctx, websocket.MessageText, text); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	select {
	case m, ok := <-answer:
		switch {
		case !ok:
			return fmt.Errorf("%s: the browser is gone", method)
		case m.Type == "error":
			return fmt.Errorf("%s: %s: %s", method, m.Error, m.Message)
		case result == nil:
			return nil
		}
		return json.Unmarshal(m.Result, result)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", method, ctx.Err())
	}
}

// evaluate runs an expression in a browsing context, waits for its promise and returns
// the string that it comes to.
func (b *bidi) evaluate(ctx context.Context, browsingContext, expression string, userActivation bool) (string, error) {
	var answer struct {
		Type   string `json:"type"`
		Result struct {
			Value json.RawMessage `json:"value"`
		} `json:"result"`
		ExceptionDetails struct {
			Text string `json:"text"`
		} `json:"exceptionDetails"`
	}
	err := b.call(ctx, "script.evaluate", map[string]any{
		"expression": expression, "target": map[string]any{"context": browsingContext},
		"awaitPromise": true, "userActivation": userActivation,
	}, &answer)
	if err != nil {
		return "", err
	}
	if answer.Type != "success" {
		return "", errors.New(answer.ExceptionDetails.Text)
	}
	var s string
	if err := json.Unmarshal(answer.Result.Value, &s); err != nil {
		return "", fmt.Errorf("%.60s comes to no string: %w", expression, err)
	}
	return s, nil
}

var bidiListens = regexp.MustCompile(`WebDriver BiDi listening on (ws://\S+)`)

// startBiDi starts a browser that announces on stderr where it listens, and ends it with
// the test.
func startBiDi(t *testing.T, cmd *exec.Cmd, hear func(method string, params json.RawMessage)) *bidi {
	t.Helper()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	endWithParent(cmd)
	started, done := make(chan error, 1), make(chan struct{})
	where := make(chan string, 1)
	var mu sync.Mutex
	var said strings.Builder
	go func() {
		// Linux ends such a child with the thread that started it, so the thread has to
		// stay for as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		failed := cmd.Start()
		started <- failed
		if failed != nil {
			return
		}
		lines := bufio.NewReader(stderr)
		for {
			line, ended := lines.ReadString('\n')
			mu.Lock()
			said.WriteString(line)
			mu.Unlock()
			if m := bidiListens.FindStringSubmatch(line); m != nil {
				where <- m[1]
			}
			if ended != nil {
				break
			}
		}
		_ = cmd.Wait()
		close(done)
	}()
	if err = <-started; err != nil {
		t.Fatal(err)
	}
	var b *bidi
	t.Cleanup(func() {
		if b != nil {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			_ = b.call(ctx, "browser.close", nil, nil)
			_ = b.conn.CloseNow()
		}
		select {
		case <-done:
			return
		case <-time.After(patience):
		}
		_ = cmd.Process.Kill()
		<-done
		if b != nil {
			t.Errorf("%s did not end within %v", cmd.Path, patience)
		}
	})
	say := func() string {
		mu.Lock()
		defer mu.Unlock()
		return said.String()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	select {
	case url := <-where:
		if b, err = dialBiDi(ctx, url+"/session", hear); err != nil {
			t.Fatal(err)
		}
	case <-done:
		t.Fatalf("%s ended before it listened: %s", cmd.Path, say())
	case <-ctx.Done():
		t.Fatalf("%s does not listen: %s", cmd.Path, say())
	}
	return b
}
