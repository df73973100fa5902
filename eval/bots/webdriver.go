package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// webdriver is a Chromium that ChromeDriver drives, by the protocol that Selenium speaks
// (https://www.w3.org/TR/webdriver2/). Each visit is a session, and so a browser, of its own.
func webdriver(window bool) func(context.Context, *bench, *site) (*runner, error) {
	return func(ctx context.Context, b *bench, s *site) (*runner, error) {
		path, err := found("chromedriver", "apt: chromium-driver", "chromedriver")
		if err != nil {
			return nil, err
		}
		browser, err := foundChromium()
		if err != nil {
			return nil, err
		}
		home, err := b.home(ctx)
		if err != nil {
			return nil, err
		}
		cmd := program(ctx, path, "--port=0")
		if cmd.Env, err = b.environment(home, window); err != nil {
			return nil, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err = start(cmd); err != nil {
			return nil, err
		}
		r := &runner{pid: cmd.Process.Pid, began: func(int) {}, close: func() { end(cmd) }}
		port, lines := "", bufio.NewScanner(out)
		for port == "" && lines.Scan() {
			if m := regexp.MustCompile(`started successfully on port (\d+)`).FindStringSubmatch(lines.Text()); m != nil {
				port = m[1]
			}
		}
		if port == "" {
			r.close()
			return nil, fmt.Errorf("%s tells no port", path)
		}
		options := map[string]any{"binary": browser, "args": quietChromium}
		if !window {
			options["args"] = append([]string{"--headless"}, quietChromium...)
		}
		d := &driver{base: "http://127.0.0.1:" + port, options: options}
		r.visit = func(ctx context.Context, calls int) error {
			return d.visit(ctx, fmt.Sprintf("%s/?calls=%d", s.origin, calls))
		}
		return r, nil
	}
}

type driver struct {
	base    string
	options map[string]any
}

func (d *driver) visit(ctx context.Context, url string) (err error) {
	var session struct{ SessionID string }
	if err = d.do(ctx, http.MethodPost, "/session", map[string]any{"capabilities": map[string]any{"alwaysMatch": map[string]any{"goog:chromeOptions": d.options}}}, &session); err != nil {
		return err
	}
	at := "/session/" + session.SessionID
	defer func() {
		if dErr := d.do(context.WithoutCancel(ctx), http.MethodDelete, at, nil, nil); err == nil {
			err = dErr
		}
	}()
	if err = d.do(ctx, http.MethodPost, at+"/url", map[string]string{"url": url}, nil); err != nil {
		return err
	}
	for title := ""; !strings.HasPrefix(title, "done"); {
		if err = d.do(ctx, http.MethodGet, at+"/title", nil, &title); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

var drivers = http.Client{Timeout: patience, Transport: &http.Transport{}}

func (d *driver) do(ctx context.Context, method, path string, send, value any) error {
	var body bytes.Buffer
	if send != nil {
		if err := json.NewEncoder(&body).Encode(send); err != nil {
			return err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, d.base+path, &body)
	if err != nil {
		return err
	}
	res, err := drivers.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // read to its end
	var answer struct{ Value json.RawMessage }
	if err = json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", method, path, tail(string(answer.Value)))
	}
	if value == nil {
		return nil
	}
	return json.Unmarshal(answer.Value, value)
}
