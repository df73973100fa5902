package explain

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/moat-gateway/moat/browser"
)

const (
	maxHAR     = 64 << 20
	maxEntries = 10000
	maxHops    = 20 // https://fetch.spec.whatwg.org/#http-redirect-fetch, step 5
)

// Entry is a request of a page as a HAR file recorded it.
type Entry struct {
	Question
	// Index is the place of the request in the file, from 0. Preflights and what was
	// redirected to are part of the entry to which they belong.
	Index   int       `json:"index"`
	Started time.Time `json:"started,omitzero"`
	// CrossOrigin is set if the page is known and of another origin than the target.
	// CORS is about no others.
	CrossOrigin bool `json:"cross_origin"`
	// Recorded is what the server answered: preflights and hops each have their own.
	Recorded []Recorded `json:"recorded,omitempty"`
	// Failure is what the browser recorded instead of an answer: "net::ERR_FAILED" or
	// "blocked", if it does not say.
	Failure string `json:"failure,omitempty"`
	// Address is the IP address of the server, if it was recorded.
	Address string `json:"address,omitempty"`
}

// Recorded is an answer in a HAR file, and for which requests it is.
type Recorded struct {
	browser.Rule
	// Index is the place in the file.
	Index int `json:"index"`
}

// Rules are the recorded answers, for browser.Case.
func (e *Entry) Rules() []browser.Rule {
	var rules []browser.Rule
	for _, r := range e.Recorded {
		rules = append(rules, r.Rule)
	}
	return rules
}

// harFile is what is read of a file in the format HAR 1.2
// (http://www.softwareishard.com/blog/har-12-spec/). Bodies are skipped.
type harFile struct {
	Log *struct {
		Pages   []harPage  `json:"pages"`
		Entries []harEntry `json:"entries"`
	} `json:"log"`
}

type harPage struct {
	ID    harText `json:"id"`
	Title harText `json:"title"`
}

type harEntry struct {
	Page     harText `json:"pageref"`
	Started  harText `json:"startedDateTime"`
	Resource harText `json:"_resourceType"`
	Server   harText `json:"serverIPAddress"`
	Request  struct {
		Method  harText     `json:"method"`
		URL     harText     `json:"url"`
		Headers []harHeader `json:"headers"`
		Cookies []harHeader `json:"cookies"`
		Body    *struct {
			Type harText `json:"mimeType"`
		} `json:"postData"`
	} `json:"request"`
	Response struct {
		Status   harNumber   `json:"status"`
		Headers  []harHeader `json:"headers"`
		Redirect harText     `json:"redirectURL"`
		Error    harText     `json:"_error"`
		Blocked  harText     `json:"_blockedReason"`
	} `json:"response"`
}

type harHeader struct {
	Name  harText `json:"name"`
	Value harText `json:"value"`
}

// harText takes a string. Tools write null or other things in places that they do not
// know; those count as empty.
type harText string

// UnmarshalJSON takes what is a string.
func (t *harText) UnmarshalJSON(b []byte) error {
	var s string
	if len(b) > 0 && b[0] == '"' {
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
	}
	*t = harText(s)
	return nil
}

// harNumber takes a number, and 0 for all else.
type harNumber int

// UnmarshalJSON takes what is a number.
func (n *harNumber) UnmarshalJSON(b []byte) error {
	var f float64
	if err := json.Unmarshal(b, &f); err != nil || f < 0 || f > 999 {
		f = 0 //nolint:nilerr // other tools write strings or null here: not known
	}
	*n = harNumber(f)
	return nil
}

// FromHAR reads a HAR file, as the network panels of Chrome, Firefox and Safari export
// them. Each of the entries is a request of a page; preflights and redirects are joined
// to the request that caused them. Requests of other schemes than http, https, ws and
// wss are skipped.
//
// Bodies, and values of cookies and of fields such as Authorization, are not kept.
func FromHAR(data []byte) ([]Entry, error) {
	if len(data) > maxHAR {
		return nil, fmt.Errorf("har: the file has %d MB, more than the %d that moat explain reads; filter the requests in the network panel, or export without content", len(data)>>20, maxHAR>>20)
	}
	file, err := parseHAR(data)
	if err != nil {
		return nil, err
	}
	if n := len(file.Log.Entries); n > maxEntries {
		return nil, fmt.Errorf("har: the file has %d requests, more than the %d that moat explain reads; filter the requests in the network panel before you export", n, maxEntries)
	}
	h := har{entries: make([]harItem, len(file.Log.Entries)), pages: map[harText]string{}}
	for _, p := range file.Log.Pages {
		h.pages[p.ID] = string(p.Title)
	}
	for i := range file.Log.Entries {
		if err = h.prepare(i, &file.Log.Entries[i]); err != nil {
			return nil, err
		}
	}
	h.index()
	h.pairPreflights()
	h.followRedirects()
	entries, err := h.build()
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		return nil, errors.New("har: the file has no request over http or https; open the network panel, reload the page and export again")
	}
	return entries, nil
}

func parseHAR(data []byte) (*harFile, error) {
	text := strings.TrimLeft(strings.TrimPrefix(string(data[:min(len(data), 512)]), "\ufeff"), " \t\r\n")
	switch {
	case text == "":
		return nil, errors.New("har: the file is empty; export it again")
	case strings.HasPrefix(text, "<"):
		return nil, errors.New("har: this is HTML or XML, not a HAR file; export one from the browser's network panel")
	case strings.HasPrefix(text, "\xff\xfe") || strings.HasPrefix(text, "\xfe\xff"):
		return nil, errors.New("har: the file is in UTF-16; save it in UTF-8")
	case !strings.HasPrefix(text, "{"):
		return nil, errors.New("har: this is no HAR file, which is a JSON object; export one from the browser's network panel")
	}
	if strings.HasPrefix(string(data[:min(len(data), 3)]), "\ufeff") {
		data = data[3:]
	}
	var file harFile
	if err := json.Unmarshal(data, &file); err != nil {
		var syntax *json.SyntaxError
		var wrong *json.UnmarshalTypeError
		switch {
		case errors.As(err, &syntax) && syntax.Offset >= int64(len(data)):
			return nil, fmt.Errorf("har: the file ends in the middle, after %d bytes; export it again", len(data))
		case errors.As(err, &syntax):
			return nil, fmt.Errorf("har: the file is no JSON at byte %d (%w); export it again", syntax.Offset, err)
		case errors.As(err, &wrong):
			return nil, fmt.Errorf("har: %s is of type %s, which no HAR file has there; export it from a browser's network panel", short(wrong.Field), wrong.Value)
		}
		return nil, fmt.Errorf("har: the file cannot be read (%w); export it again", err)
	}
	if file.Log == nil || file.Log.Entries == nil {
		return nil, errors.New("har: this is JSON but no HAR file: it has no log.entries; export one from the browser's network panel")
	}
	return &file, nil
}

// har is a file that is being joined together.
type har struct {
	entries []harItem
	pages   map[harText]string
	// byURL are the indexes of the entries, in their order.
	byURL map[string][]int
}

type harItem struct {
	*harEntry
	method, url    string // without fragment
	header, answer browser.Header
	notes          []string
	skip           bool
	preflight      bool
	// joined are the entries that belong to this one: preflights before, hops behind.
	joined []int
	part   bool // joined to another
}

// prepare reads one entry's strings.
func (h *har) prepare(i int, e *harEntry) error {
	item := harItem{harEntry: e, method: string(e.Request.Method), url: withoutFragment(strings.TrimSpace(string(e.Request.URL)))}
	u, err := url.Parse(item.url)
	if err != nil || len(item.url) > maxURL || u.Hostname() == "" || u.Opaque != "" ||
		!containsFold([]string{"http", "https", "ws", "wss"}, u.Scheme) || !isToken(item.method) {
		item.skip = true // data:, blob:, chrome-extension:, or nothing that a browser recorded
		h.entries[i] = item
		return nil
	}
	if len(e.Request.Headers) > maxFields || len(e.Response.Headers) > maxFields {
		return fmt.Errorf("har: log.entries[%d] has more than %d header fields; remove the entry", i, maxFields)
	}
	item.header = item.fields(e.Request.Headers)
	item.answer = item.fields(e.Response.Headers)
	item.preflight = item.method == "OPTIONS" && item.header.Has("Access-Control-Request-Method")
	h.entries[i] = item
	return nil
}

// fields takes the header fields that can be ones. Chrome joins fields of one name with
// line breaks; they are taken apart again.
func (item *harItem) fields(all []harHeader) browser.Header {
	var header browser.Header
	for _, f := range all {
		name := string(f.Name)
		if !isToken(name) {
			continue // ":authority", or what no server can have sent
		}
		for value := range strings.SplitSeq(string(f.Value), "\n") {
			value = strings.ReplaceAll(strings.Trim(value, " \t\r"), "\x00", "")
			value = strings.ReplaceAll(value, "\r", "")
			if len(value) > maxValue {
				value = strings.ToValidUTF8(value[:maxValue], "")
				item.notes = append(item.notes, fmt.Sprintf("The value of %s was cut after %d bytes.", name, maxValue))
			}
			if len(header) < 2*maxFields {
				header = append(header, browser.Field{Name: name, Value: value})
			}
		}
	}
	return header
}

func (h *har) index() {
	h.byURL = map[string][]int{}
	for i := range h.entries {
		if !h.entries[i].skip {
			h.byURL[h.entries[i].url] = append(h.byURL[h.entries[i].url], i)
		}
	}
}

// nearest returns the first entry of that URL behind i which fits, or else the last
// before i if backwards is set.
func (h *har) nearest(i int, target string, backwards bool, fits func(*harItem) bool) int {
	all := h.byURL[target]
	at, _ := slices.BinarySearch(all, i)
	// So many requests of one URL at once are none that people ask about; the bound keeps
	// hostile files from costing the square of their size.
	const far = 200
	for _, j := range all[at:min(len(all), at+far)] {
		if j != i && fits(&h.entries[j]) {
			return j
		}
	}
	for k := at - 1; backwards && k >= max(0, at-far); k-- {
		if fits(&h.entries[all[k]]) {
			return all[k]
		}
	}
	return -1
}

// pairPreflights joins each preflight to the request for which it asked. Browsers record
// it before or behind that, since the request starts before its preflight does.
func (h *har) pairPreflights() {
	for i := range h.entries {
		p := &h.entries[i]
		if p.skip || !p.preflight {
			continue
		}
		method := p.header.Value("Access-Control-Request-Method")
		origin := p.header.Value("Origin")
		j := h.nearest(i, p.url, true, func(e *harItem) bool {
			theirs, ok := e.header.Get("Origin")
			return !e.preflight && e.method == method && (!ok || theirs == origin) && len(e.joined) == 0
		})
		if j >= 0 {
			h.entries[j].joined = append(h.entries[j].joined, i)
			p.part = true
		}
	}
}

// followRedirects joins hops to the request that was redirected.
func (h *har) followRedirects() {
	for i := range h.entries {
		e := &h.entries[i]
		if e.skip || e.part || e.preflight {
			continue
		}
		hop := e
		last := i
		for range maxHops {
			target, ok := hop.redirect()
			if !ok {
				break
			}
			j := h.nearest(last, target, false, func(next *harItem) bool {
				return !next.part && !next.preflight && next != e && next.Page == e.Page
			})
			if j < 0 {
				break
			}
			next := &h.entries[j]
			next.part = true
			e.joined = append(e.joined, next.joined...)
			e.joined = append(e.joined, j)
			hop, last = next, j
		}
	}
}

// redirect returns where the answer leads.
func (item *harItem) redirect() (string, bool) {
	if item.Response.Status < 300 || item.Response.Status > 399 {
		return "", false
	}
	location := string(item.Response.Redirect)
	if location == "" {
		location = item.answer.Value("Location")
	}
	base, err := url.Parse(item.url)
	if err != nil || location == "" {
		return "", false
	}
	u, err := base.Parse(location)
	if err != nil {
		return "", false
	}
	return withoutFragment(u.String()), true
}

func (h *har) build() ([]Entry, error) {
	var entries []Entry
	for i := range h.entries {
		item := &h.entries[i]
		if item.skip || item.part {
			continue
		}
		e, err := h.entry(i, item)
		if err != nil {
			return nil, err
		}
		entries = append(entries, *e)
	}
	return entries, nil
}

func (h *har) entry(i int, item *harItem) (*Entry, error) {
	s := sent{
		source: fmt.Sprintf("har: log.entries[%d]", i), method: item.method, url: item.url,
		header: item.header, resource: lowerASCII(string(item.Resource)), recorded: true, notes: item.notes,
	}
	if !item.topLevel() {
		s.page = h.pages[item.Page]
	}
	for _, c := range item.Request.Cookies {
		if len(s.cookies) < maxFields {
			s.cookies = append(s.cookies, cookieNames(string(c.Name)+"=")...)
		}
	}
	if body := item.Request.Body; body != nil && !item.preflight {
		s.body = &browser.Body{Kind: "text"}
		if _, ok := s.header.Get("Content-Type"); !ok && body.Type != "" && isPlain(string(body.Type)) {
			s.header = append(slices.Clone(s.header), browser.Field{Name: "Content-Type", Value: string(body.Type)})
		}
	}
	for _, j := range item.joined {
		if p := &h.entries[j]; p.preflight && p.url == item.url {
			h.listedBy(&s, p)
		}
	}
	q, err := s.question()
	if err != nil {
		return nil, err
	}
	e := &Entry{Question: *q, Index: i, Address: address(string(item.Server))}
	if started, err := time.Parse(time.RFC3339Nano, string(item.Started)); err == nil {
		e.Started = started
	}
	page, known := pageURL(q.Page.URL)
	if target, err := url.Parse(q.Request.URL); err == nil && known {
		e.CrossOrigin = q.Page.Sandboxed || !sameOrigin(page, target)
	}
	h.record(e, i)
	return e, nil
}

// topLevel reports whether the request is for the page itself: then the file does not say
// which page led there.
func (item *harItem) topLevel() bool {
	dest, ok := item.header.Get("Sec-Fetch-Dest")
	if ok {
		return strings.EqualFold(dest, "document")
	}
	return item.Resource == "document" || item.header.Has("Upgrade-Insecure-Requests")
}

// isPlain reports whether a value can stand in a header field and is not overly long.
func isPlain(value string) bool {
	return len(value) <= 1024 && !strings.ContainsAny(value, "\r\n\x00")
}

// listedBy takes from a preflight which header fields script had set.
func (h *har) listedBy(s *sent, preflight *harItem) {
	s.script = []string{}
	for name := range strings.SplitSeq(preflight.header.Value("Access-Control-Request-Headers"), ",") {
		name = lowerASCII(strings.TrimSpace(name))
		if !isToken(name) || len(s.script) == maxFields {
			continue
		}
		s.script = append(s.script, name)
		if !s.header.Has(name) {
			// Exports leave Authorization out, and what a blocked request would have had.
			value := hidden
			if name == "content-type" {
				value = "application/json"
			}
			s.header = append(slices.Clone(s.header), browser.Field{Name: name, Value: value})
			s.note("%s was not recorded but the preflight lists it; a placeholder was put in.", name)
		}
	}
}

// record collects the answers of an entry and of what is joined to it.
func (h *har) record(e *Entry, i int) {
	for _, j := range append(slices.Clone(h.entries[i].joined), i) {
		item := &h.entries[j]
		target := cleanURL(item.url)
		rule := browser.Rule{URL: target, On: "actual"}
		if item.preflight {
			rule.On = "preflight"
		}
		rule.Answer.Status = int(item.Response.Status)
		for _, f := range item.answer {
			f.Value = redactField(f.Name, f.Value)
			rule.Answer.Header = append(rule.Answer.Header, f)
		}
		if rule.Answer.Status == 0 {
			failure := netError(string(item.Response.Error))
			if failure == "" && item.Response.Blocked != "" {
				failure = "blocked"
			}
			if e.Failure == "" {
				e.Failure = cmp.Or(failure, "blocked")
			}
			if !atNetwork(failure) {
				// The browser withheld the answer: what the server said is not known.
				continue
			}
			rule.Answer = browser.Answer{Failure: failure}
		}
		e.Recorded = append(e.Recorded, Recorded{Rule: rule, Index: j})
	}
	slices.SortStableFunc(e.Recorded, func(a, b Recorded) int { return cmp.Or(rank(a)-rank(b), a.Index-b.Index) })
	if e.Failure != "" && len(e.Notes) < maxNotes {
		e.Notes = append(e.Notes, "The browser recorded no answer ("+e.Failure+").")
	}
}

func rank(r Recorded) int {
	if r.On == "preflight" {
		return 0
	}
	return 1
}

// netError takes the name of a net error out of a text.
func netError(text string) string {
	_, name, ok := strings.Cut(text, "net::ERR_")
	if !ok {
		return ""
	}
	n := 0
	for n < len(name) && n < 80 && ('A' <= name[n] && name[n] <= 'Z' || '0' <= name[n] && name[n] <= '9' || name[n] == '_') {
		n++
	}
	return "net::ERR_" + name[:n]
}

// atNetwork reports whether a failure is one of the network's, rather than one by which
// the browser's own rules withheld the answer.
func atNetwork(failure string) bool {
	switch failure {
	case "", "blocked", "net::ERR_", "net::ERR_FAILED", "net::ERR_ABORTED":
		return false
	}
	return !strings.HasPrefix(failure, "net::ERR_BLOCKED_BY_")
}

func address(server string) string {
	server = strings.Trim(server, "[]")
	for i := range len(server) {
		if strings.IndexByte("0123456789abcdefABCDEF:.%", server[i]) < 0 {
			return ""
		}
	}
	if len(server) > 64 {
		return ""
	}
	return server
}
