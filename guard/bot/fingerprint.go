package bot

import (
	_ "embed"
	"fmt"
	"strings"
)

// fingerprints.tsv has what programs were seen to send before their first request.
//
//go:embed fingerprints.tsv
var fingerprintsTSV string

// fingerprints tell who makes such connections. What is not known says nothing.
type fingerprints struct{ ja4, http2 map[string]maker }

// maker is a program that makes connections.
type maker struct {
	family family
	name   string
}

func parseFingerprints(tsv string) (fingerprints, error) {
	p := fingerprints{make(map[string]maker), make(map[string]maker)}
	number := 0
	for line := range strings.Lines(tsv) {
		number++
		line = strings.TrimRight(line, "\n")
		if line == "" || line[0] == '#' {
			continue
		}
		col := strings.Split(line, "\t")
		if len(col) != 5 {
			return p, fmt.Errorf("line %d has %d columns, not 5", number, len(col))
		}
		m := maker{program, col[3]}
		switch col[2] {
		case "chromium":
			m.family = chromium
		case "firefox":
			m.family = firefox
		case "program":
		default:
			return p, fmt.Errorf("line %d: no such family: %q", number, col[2])
		}
		switch col[0] {
		case "ja4":
			p.ja4[col[1]] = m
		case "http2":
			p.http2[col[1]] = m
		default:
			return p, fmt.Errorf("line %d: no such fingerprint: %q", number, col[0])
		}
	}
	return p, nil
}

// tls compares the cipher suites, JA4's middle part, with the claim. They are those of the library
// that speaks TLS, and stay for years; the extensions differ from one connection to the next.
func (p *fingerprints) tls(q *subject) (f found) {
	if _, rest, ok := strings.Cut(q.facts.JA4, "_"); ok {
		suites, _, _ := strings.Cut(rest, "_")
		q.compare(&f, p.ja4[suites])
	}
	return f
}

// settings compares HTTP/2's settings, window and pseudo-headers with the claim.
func (p *fingerprints) settings(q *subject) (f found) {
	if q.facts.HTTP2 != "" {
		q.compare(&f, p.http2[q.facts.HTTP2])
	}
	return f
}

// compare says nothing about a maker that is not known, or that is hidden by no claim.
func (q *subject) compare(f *found, m maker) {
	if m.name != "" && q.family.browser() && q.family != unknown && m.family != q.family {
		f.add(40, m.name)
	}
}

// Where browsers put those of their header fields that pages cannot set, or cannot move.
var (
	// Chromium puts Host and Connection first, and its Accept-Encoding behind what says where the
	// request comes from.
	chromiumOrder = [...]string{"Host", "Connection", "Accept", "Sec-Fetch-Site", "Sec-Fetch-Dest", "Referer", "Accept-Encoding"}
	// Firefox has the other order of Sec-Fetch-*, and of its Accept-Encoding unless it asks for a range.
	firefoxOrder = [...]string{"Host", "User-Agent", "Accept", "Accept-Language", "Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site", "Priority"}
)

// headerOrder looks at the first request of the connection, which the same program has sent. It may
// be a preflight or a handshake: those were looked at, too.
func headerOrder(q *subject) (f found) {
	var want []string
	switch {
	case q.major < 90:
	case q.family == chromium:
		want = chromiumOrder[:]
	case q.family == firefox:
		want = firefoxOrder[:]
	}
	at := 0
	for i, name := range q.facts.HeaderOrder {
		if want == nil {
			break
		}
		// HTTP/2 has no capitals.
		if q.ProtoMajor == 1 && len(name) >= 9 && strings.EqualFold(name[:9], "sec-ch-ua") && name[:9] != "sec-ch-ua" {
			f.add(30, "sec-ch-ua is spelt otherwise")
			return f
		}
		for j, w := range want {
			switch {
			case !strings.EqualFold(name, w):
				continue
			case q.ProtoMajor == 1 && j < 2 && i != j:
				f.add(30, w+" is not where this browser puts it")
			case j < at:
				f.add(30, w+" stands too late")
			case q.ProtoMajor == 1 && name != w && !pagesOwn(w):
				f.add(30, name+" is spelt otherwise")
			}
			if f.points > 0 {
				return f
			}
			at = j
		}
	}
	return f
}

// pagesOwn reports whether script can set a field, which is then spelt as it likes.
func pagesOwn(name string) bool {
	return name == "Accept" || name == "Accept-Language" || name == "User-Agent" || name == "Priority"
}
