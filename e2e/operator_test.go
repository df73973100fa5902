package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

// A page is told nothing of why it was refused, its user less. The operator is told all.
func TestOperatorIsToldWhy(t *testing.T) {
	thorough(t)
	t.Parallel()
	s := newStage(t)
	stranger, friend := s.pages[stranger], s.pages[friendly]

	b := newTab(t)
	b.open(stranger)
	if saw := b.run(s.gate.origin, `return saw(fetch(api + "/api/data?password=swordfish"))`); saw != failed {
		t.Errorf("the stranger's page saw %q; want no more than %q", saw, failed)
	}
	b.open(friend)
	body := b.run(s.gate.origin, `return (await fetch(api + "/nothing")).text()`)
	var told struct{ Code, ID string }
	if err := json.Unmarshal([]byte(body), &told); err != nil || told.Code != "route-not-found" || told.ID == "" {
		t.Fatalf("the friendly page was told %s (%v); want the code route-not-found and an id", body, err)
	}

	var refused []logLine
	eventually(t, "moat logs both refusals", func() (string, bool) {
		refused = s.gate.log("request refused")
		return s.gate.stderr.String(), len(refused) == 2
	})
	for key, want := range map[string]string{"level": "INFO", "code": "cors-origin-not-allowed", "step": "cors", "route": "/api/", "mode": "enforce", "client": "127.0.0.1"} {
		if got := refused[0].text(key); got != want {
			t.Errorf("the log's line has %s=%q; want %q", key, got, want)
		}
	}
	if got := refused[1].text("id"); got != told.ID {
		t.Errorf("the log has the id %q, the page %q", got, told.ID)
	}

	id := refused[0].text("id")
	explained := s.gate.why(id)
	_, host, _ := strings.Cut(s.gate.origin, "//")
	for _, want := range []string{
		"cors-origin-not-allowed", "refused with 403", `Origin: "` + stranger + `"`, "add its origin to the policy's origins",
		"GET " + host + "/api/data\n", "The upstream has not seen it.", "This origin may not call this API",
	} {
		if !strings.Contains(explained, want) {
			t.Errorf("moat why %s lacks %q:\n%s", id, want, explained)
		}
	}
	if explained := s.gate.why(told.ID); !strings.Contains(explained, "route-not-found") || !strings.Contains(explained, "GET /nothing") {
		t.Errorf("moat why %s, an id that a page was told, says\n%s", told.ID, explained)
	}
	list := strings.Split(s.gate.why(), "\n")
	if len(list) != 4 || !strings.HasPrefix(list[1], told.ID+" ") || !strings.HasPrefix(list[2], id+" ") {
		t.Errorf("moat why lists\n%s\nwant a head, %s, %s", strings.Join(list, "\n"), told.ID, id)
	}
	var d decision
	if err := json.Unmarshal([]byte(s.gate.why("--json", id)), &d); err != nil || d.ID != id || d.Code != "cors-origin-not-allowed" {
		t.Errorf("moat why --json %s: %+v, %v", id, d, err)
	}
	if seen := s.gate.stderr.String() + s.gate.why("--json"); strings.Contains(seen, "swordfish") {
		t.Errorf("the operator sees a query:\n%s", seen)
	}

	for series, want := range map[string]string{
		`moat_decisions_total{mode="enforce",reason="cors-origin-not-allowed",route="/api/",step="cors"}`: "1",
		`moat_decisions_total{mode="enforce",reason="route-not-found",route="",step="route"}`:             "1",
	} {
		if got := s.gate.metric(series); got != want {
			t.Errorf("%s is %q; want %q", series, got, want)
		}
	}
}

func TestReloadBreaksNoStream(t *testing.T) {
	thorough(t)
	t.Parallel()
	s := newStage(t)
	friend, other := s.pages[friendly], s.pages[sibling]
	good := s.gate.read(t)
	opened := strings.Replace(good, `["`+friend+`"]`, `["`+friend+`", "`+other+`"]`, 1)

	listener := newTab(t)
	listener.open(friend)
	listener.run(s.gate.origin, `
		window.heard = 0;
		window.errors = 0;
		window.source = new EventSource(api + "/events");
		source.onmessage = () => heard++;
		source.onerror = () => errors++;
		return "";`)
	// streams checks that the stream goes on, and is the one that was opened at first.
	streams := func(after string) {
		t.Helper()
		before := listener.eval(`String(heard)`)
		eventually(t, "the stream goes on "+after, func() (string, bool) {
			now := listener.eval(`String(heard)`)
			return now + " events", now != before
		})
		if errors, runs := listener.eval(`String(errors)`), s.guarded.ledger().Runs["events"]; errors != "0" || runs != 1 {
			t.Errorf("%s the stream had %s errors, and was opened %d times", after, errors, runs)
		}
	}
	streams("at first")

	caller := newTab(t)
	caller.open(other)
	calls := func(when, want string) {
		t.Helper()
		if saw := caller.run(s.gate.origin, `return saw(fetch(api + "/api/data"))`); saw != want {
			t.Errorf("%s, the other page saw %q; want %q", when, saw, want)
		}
	}
	reloads := func(result, want string) {
		t.Helper()
		eventually(t, "moat reloads", func() (string, bool) {
			got := s.gate.metric(`moat_reloads_total{result="` + result + `"}`)
			return result + " " + got, got == want
		})
	}
	calls("before it is listed", failed)

	s.gate.write(t, opened)
	s.gate.signal(syscall.SIGHUP)
	reloads("applied", "1")
	calls("when it is listed", "cors 200 data")
	streams("after SIGHUP")

	s.gate.write(t, good)
	reloads("applied", "2")
	calls("when it is listed no more", failed)
	streams("after the file was edited")

	s.gate.write(t, strings.Replace(opened, "upstream: express", "upstream: expres", 1))
	reloads("refused", "1")
	calls("with a broken file", failed)
	streams("after the file was broken")
	faults := s.gate.log("configuration is at fault")
	if len(faults) != 1 || !strings.Contains(faults[0].text("fault"), `moat.yaml:`) || !strings.Contains(faults[0].text("fault"), `"expres"`) {
		t.Errorf("the log says of the broken file: %v", faults)
	}
	if kept := s.gate.log("configuration not reloaded: the old one stays in force"); len(kept) != 1 || kept[0].text("level") != "ERROR" {
		t.Errorf("the log says of the old file: %v", kept)
	}
	s.gate.signal(syscall.SIGHUP)
	reloads("refused", "2")

	s.gate.write(t, opened)
	reloads("applied", "3")
	calls("when the file is mended", "cors 200 data")
	streams("after the file was mended")
}

func TestStopLosesNothing(t *testing.T) {
	thorough(t)
	t.Parallel()
	s := newStage(t)

	b := newTab(t)
	b.open(s.pages[friendly])
	b.run(s.gate.origin, `window.answer = saw(fetch(api + "/slow")); return ""`)

	// A request whose own body is still on its way, too.
	body, rest := io.Pipe()
	uploaded := s.upload(t, body)
	send(t, rest, "one half, ")
	eventually(t, "both requests reach Express", func() (string, bool) {
		l := s.guarded.ledger()
		return l.arrived(), len(l.Requests) == 2 && l.Runs["slow"] == 1
	})

	s.gate.signal(syscall.SIGTERM)
	eventually(t, "moat accepts no more", func() (string, bool) {
		c, err := net.Dial("tcp", s.gate.addr)
		if err != nil {
			return err.Error(), true
		}
		c.Close()
		return "it accepts", false
	})
	res, err := client.Get("http://" + s.gate.admin + "/readyz")
	if err != nil {
		t.Fatalf("while it drains: %v", err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("while it drains, /readyz says %s; want 503", res.Status)
	}

	send(t, rest, "the other")
	rest.Close()
	eventually(t, "Express has the upload", func() (string, bool) {
		l := s.guarded.ledger()
		return fmt.Sprint(l.Runs), l.Runs["slow"] == 2
	})
	s.guarded.release()
	if saw := b.eval(`answer`); saw != "cors 200 first,last" {
		t.Errorf("the page saw %q; want the whole answer", saw)
	}
	if got := <-uploaded; got != "200 OK first,last" {
		t.Errorf("the upload was answered %q; want the whole answer", got)
	}
	if err := s.gate.wait(); err != nil {
		t.Errorf("moat ended with %v", err)
	}
	if len(s.gate.log("stopped")) != 1 {
		t.Errorf("moat does not log that it stopped")
	}
}

// upload sends the friendly page's POST /slow through moat, and returns where its answer,
// or what went wrong, will come.
func (s stage) upload(t *testing.T, body io.Reader) <-chan string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.gate.addr+"/slow", body)
	if err != nil {
		t.Fatal(err)
	}
	_, req.Host, _ = strings.Cut(s.gate.origin, "//")
	req.Header.Set("Origin", s.pages[friendly])
	req.Header.Set("Content-Type", "text/plain")
	answered := make(chan string, 1)
	go func() {
		res, err := client.Do(req)
		if err != nil {
			answered <- err.Error()
			return
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			text = append(text, err.Error()...)
		}
		answered <- res.Status + " " + string(text)
	}()
	return answered
}

func send(t *testing.T, w io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
}
