package lab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/moat-gateway/moat/browser"
)

// Rule is a part of what the API's middleware answers. All rules that match a request
// count: fields add up, and the last status holds. So a policy can be read as the header
// fields that it sends, and a reader can change any of them.
type Rule struct {
	// On is "preflight" or "actual"; empty is both.
	On string `json:"on,omitempty"`
	// Origin are the values of the Origin field for which it counts; empty is any, also
	// none.
	Origin []string `json:"origin,omitempty"`
	// Path is the only path for which it counts; empty is any.
	Path string `json:"path,omitempty"`
	// Status is that of the answer; 0 leaves it alone. A preflight has 204 without one.
	Status int `json:"status,omitempty"`
	// Header are the fields. {origin} stands for the request's own Origin.
	Header browser.Header `json:"headers,omitempty"`
}

// Answers are a policy: the name of one in lessons/answers.yaml, or its rules.
type Answers struct {
	Name  string
	Rules []Rule
}

// UnmarshalJSON reads a name or a list of rules.
func (a *Answers) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &a.Name)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(&a.Rules)
}

// MarshalJSON writes the rules. A name is looked up before.
func (a Answers) MarshalJSON() ([]byte, error) { return json.Marshal(a.Rules) }

// answer puts what the rules say for the request into h, and returns the status; 0 if they
// say none.
func answer(rules []Rule, r *http.Request, preflight bool, h http.Header) (status int) {
	origin := r.Header.Get("Origin")
	sent := 0
	for _, rule := range rules {
		switch {
		case rule.On == "preflight" && !preflight, rule.On == "actual" && preflight:
			continue
		case len(rule.Origin) > 0 && !slices.Contains(rule.Origin, origin):
			continue
		case rule.Path != "" && rule.Path != r.URL.Path:
			continue
		}
		if rule.Status != 0 {
			status = rule.Status
		}
		for _, f := range rule.Header {
			// Of a head that would be longer the rest is left out.
			if sent += len(f.Name) + len(f.Value) + strings.Count(f.Value, "{origin}")*len(origin); sent > maxHead {
				return status
			}
			if value := strings.ReplaceAll(f.Value, "{origin}", origin); !strings.ContainsAny(value, "\r\n\x00") {
				h.Add(f.Name, value)
			}
		}
	}
	return status
}

// isPreflight reports whether it is a CORS-preflight request.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != ""
}

const (
	maxRules  = 50
	maxFields = 100
	maxHead   = 32 << 10 // of what the rules make of an answer's head, in bytes
	// maxWritten bounds the rules' texts and the cookies, in bytes: what stands there for a
	// token or an origin is many times as long.
	maxWritten = 16 << 10
)

// framing are the fields that say where an answer ends. With one of these from a rule, a
// server in front of the lab could take a part of the answer for another visitor's.
var framing = []string{"Connection", "Content-Length", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// lasting are the fields that are about more than the answer: they command a server in front
// of the lab, or have the browser remember something about the whole domain, which others use.
var lasting = []string{"Alt-Svc", "Clear-Site-Data", "Nel", "Report-To", "Reporting-Endpoints", "Strict-Transport-Security", "X-Sendfile"}

func lasts(name string) bool {
	return slices.Contains(lasting, name) || strings.HasPrefix(name, "X-Accel-") || strings.HasPrefix(name, "X-Lighttpd-")
}

// judge bounds the rules and cookies that a reader wrote.
func judge(rules []Rule, cookies []string) error {
	written := len(strings.Join(cookies, ""))
	if len(rules) > maxRules {
		return fmt.Errorf("%d rules: more than the %d that are taken", len(rules), maxRules)
	}
	for i, r := range rules {
		written += len(strings.Join(r.Origin, "")) + len(r.Path)
		switch {
		case r.On != "" && r.On != "preflight" && r.On != "actual":
			return fmt.Errorf("answers[%d].on: %.40q: neither preflight nor actual", i, r.On)
		case r.Status != 0 && (r.Status < 200 || r.Status > 599):
			return fmt.Errorf("answers[%d].status: %d: not between 200 and 599", i, r.Status)
		case len(r.Header) > maxFields:
			return fmt.Errorf("answers[%d].headers: %d fields: more than the %d that are taken", i, len(r.Header), maxFields)
		}
		for _, f := range r.Header {
			if !isToken(f.Name) {
				return fmt.Errorf("answers[%d].headers: %.40q: not a header name", i, f.Name)
			}
			if strings.ContainsAny(f.Value, "\r\n\x00") {
				return fmt.Errorf("answers[%d].headers: %s: a line break in its value", i, f.Name)
			}
			switch name := http.CanonicalHeaderKey(f.Name); {
			case slices.Contains(framing, name):
				return fmt.Errorf("answers[%d].headers: %s: says where the answer ends, which is the server's to say", i, f.Name)
			case lasts(name):
				return fmt.Errorf("answers[%d].headers: %s: is about more than this answer; leave it out in the lab", i, f.Name)
			}
			written += len(f.Name) + len(f.Value)
		}
	}
	if written > maxWritten {
		return fmt.Errorf("answers and cookies: %d bytes: more than the %d that are taken", written, maxWritten)
	}
	return nil
}

func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}
