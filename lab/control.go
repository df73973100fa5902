package lab

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/config"
)

// maxAsked bounds what the page sends to the lab.
const maxAsked = 256 << 10

// boot is what the page is told when it begins.
type boot struct {
	// Role is whose site the page is on.
	Role    Role            `json:"role"`
	Origins map[Role]string `json:"origins"`
	Shared  bool            `json:"shared"`
	Lessons []Lesson        `json:"lessons"`
	Books   Books           `json:"books"`
}

// prepared is a run that the page may make now.
type prepared struct {
	Number int `json:"number"`
	// Run is the run with all names filled in.
	Run *Run `json:"run"`
	// SignIn is where to go first, if the run needs cookies. It leads back.
	SignIn string       `json:"sign_in,omitempty"`
	Page   browser.Page `json:"page"`
	Books  Books        `json:"books"`
}

// servePage answers on a site: with the page, and below /.lab/ with what it asks for.
func (l *Lab) servePage(w http.ResponseWriter, r *http.Request, v *visitor, role Role) {
	path, own := strings.CutPrefix(r.URL.Path, "/.lab/")
	script, isScript := strings.CutPrefix(path, "script/")
	switch {
	case !own:
		l.serveFile(w, r)
		return
	case path == "hop":
		v.hop(w, r)
		return
	case isScript && r.Method == http.MethodGet: // the same for everybody, and a sandboxed stage has no origin
		l.serveScript(w, script)
		return
	case path == "probe" && r.Method == http.MethodGet: // for the pages of the other sites, and says so itself
		w.Header().Set("Cache-Control", "no-store")
		l.serveProbe(w, r, v)
		return
	case !sameOrigin(r):
		writeJSON(w, http.StatusForbidden, map[string]string{"error": "only a page of this very origin may ask for this"})
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	if path != "events" { // that stays open, and has a bound of its own
		share := &v.share
		if r.Method != http.MethodPost { // what hangs is to be read about
			share = &v.reading
		}
		if why := share.take(time.Now()); why != "" {
			w.Header().Set("Retry-After", "1")
			refuse(w, http.StatusTooManyRequests, why)
			return
		}
		defer share.release()
	}
	switch r.Method + " " + path {
	case "GET stage":
		l.serveStage(w, r, v)
	case "GET boot":
		writeZipped(w, r, boot{role, l.o.Names.Origins(v.id), l.o.Names.shared, l.lessonsFor(v), v.booksNow()})
	case "GET events":
		v.serveEvents(w, r)
	case "GET ledger":
		number, _ := strconv.Atoi(r.URL.Query().Get("run"))
		writeJSON(w, http.StatusOK, v.ledger.of(number))
	case "POST run":
		l.serveRun(w, r, v)
	case "POST play":
		l.servePlay(w, r, v)
	case "POST reset":
		v.reset()
		writeJSON(w, http.StatusOK, v.booksNow())
	case "POST check":
		l.serveCheck(w, r, v)
	case "POST config":
		l.serveConfig(w, r, v)
	case "POST defend":
		l.serveDefend(w, r, v)
	case "POST progress":
		l.serveProgress(w, r, v)
	case "POST audit":
		l.serveAudit(w, r, v)
	case "GET reasons":
		serveReasons(w)
	case "GET answers":
		serveAnswers(w)
	case "GET schema":
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(config.Schema())
	default:
		writeJSON(w, http.StatusNotFound, map[string]string{"error": "the lab has no such thing"})
	}
}

// sameOrigin reports whether a page of the host itself asks, or no page at all. What pages of
// other origins ask for is refused before it does anything: a stranger's site that is open in
// the same browser cannot drive the lab, and no site of the lab another one's. A name that was
// rebound to this machine does not get here, for it is no host of the lab.
func sameOrigin(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return true
	case "":
		// Browsers tell nothing to an http: host of another machine, but for Origin.
		origin := r.Header.Get("Origin")
		_, host, _ := strings.Cut(origin, "://")
		return origin == "" || strings.EqualFold(host, r.Host)
	}
	return false
}

// lessonsFor are the lessons with each moat.yaml as this visitor has it: what stands in the
// editor is what is compiled, to the column.
func (l *Lab) lessonsFor(v *visitor) []Lesson {
	lessons := slices.Clone(l.o.Lessons)
	for i, lesson := range lessons {
		if lesson.Mend != nil {
			m := *lesson.Mend
			m.Start, m.Solution = l.fillConfig(v, m.Start), l.fillConfig(v, m.Solution)
			lessons[i].Mend = &m
		}
	}
	return lessons
}

// lesson returns the lesson of that name, or nil.
func (l *Lab) lesson(name string) *Lesson {
	i := slices.IndexFunc(l.o.Lessons, func(lesson Lesson) bool { return lesson.Name == name })
	if i < 0 {
		return nil
	}
	return &l.o.Lessons[i]
}

// writeZipped is writeJSON for what is large: the lessons are the most of what the page loads.
func writeZipped(w http.ResponseWriter, r *http.Request, v any) {
	h := w.Header()
	h.Set("Vary", "Accept-Encoding")
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		writeJSON(w, http.StatusOK, v)
		return
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Encoding", "gzip")
	z := gzip.NewWriter(w)
	_ = json.NewEncoder(z).Encode(v)
	_ = z.Close() // who does not take it has left
}

// asked reads what the page sent.
func asked(w http.ResponseWriter, r *http.Request, to any) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAsked))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		return false
	}
	return true
}

// runAsked names a run of a lesson, or is one of the composer's.
type runAsked struct {
	Lesson string `json:"lesson"`
	Run    string `json:"run"`
	// Composed is a run that the reader composed himself.
	Composed *Run `json:"composed"`
	// Target is "api" or "gate".
	Target Role `json:"target"`
}

func (l *Lab) find(a runAsked) (*Run, error) {
	if a.Target != RoleAPI && a.Target != RoleGate {
		return nil, fmt.Errorf("target: %.20q: neither api nor gate", a.Target)
	}
	if c := a.Composed; c != nil {
		if len(c.Requests) > maxRequests || len(c.Cookies) > maxRequests || slices.ContainsFunc(c.Requests, func(r browser.Request) bool { return len(r.Header) > maxFields }) {
			return nil, fmt.Errorf("composed: more than %d requests or cookies, or than %d header fields", maxRequests, maxFields)
		}
		c.Why = "" // nobody reads it
		return c, c.compile(nil)
	}
	if lesson := l.lesson(a.Lesson); lesson != nil {
		for _, run := range slices.Concat(lesson.Runs, lesson.Break) {
			if run.ID == a.Run {
				return &run, nil
			}
		}
	}
	return nil, errors.New("there is no such lesson or run")
}

// maxRequests bounds a run that a reader composed.
const maxRequests = 20

// begin is what a reader's run begins with: the run, and the gate as it is to be for it. If it
// is ok, rest has to follow.
func (l *Lab) begin(w http.ResponseWriter, r *http.Request, v *visitor) (run *Run, target Role, ok bool) {
	var a runAsked
	if !asked(w, r, &a) {
		return nil, "", false
	}
	run, err := l.find(a)
	if err != nil {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		return nil, "", false
	}
	if !l.work(w, r, v) {
		return nil, "", false
	}
	if a.Target == RoleGate {
		// A run of a lesson comes out the same each time. What is composed may count up.
		if err := l.gateFor(v, a.Lesson, a.Composed == nil); err != nil {
			l.rest(v)
			writeJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
			return nil, "", false
		}
	}
	return run, a.Target, true
}

// serveRun sets the world up for a run that the reader's browser is about to make.
func (l *Lab) serveRun(w http.ResponseWriter, r *http.Request, v *visitor) {
	run, target, ok := l.begin(w, r, v)
	if !ok {
		return
	}
	defer l.rest(v)
	run = l.expand(v, run, target)
	p := prepared{Number: v.begin(run.Answers.Rules, run.Cookies), Run: run, Page: l.page(v, run), Books: v.booksNow()}
	if len(run.Cookies) > 0 {
		p.SignIn = l.o.Names.Origin(target, v.id) + "/sign-in"
	}
	writeJSON(w, http.StatusOK, p)
}

// servePlay makes a run with the lab's own client, or the model of a browser.
func (l *Lab) servePlay(w http.ResponseWriter, r *http.Request, v *visitor) {
	run, target, ok := l.begin(w, r, v)
	if !ok {
		return
	}
	defer l.rest(v)
	o, err := l.play(r.Context(), v, run, target, time.Now())
	if err != nil {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, o)
}

// work waits for its turn with what takes time: each visitor does one thing after another, and
// a few do so at once. If it reports true, rest has to follow.
func (l *Lab) work(w http.ResponseWriter, r *http.Request, v *visitor) bool {
	ctx, stop := context.WithTimeout(r.Context(), 20*time.Second)
	defer stop()
	select {
	case v.turn <- struct{}{}:
		select {
		case l.working <- struct{}{}:
			return true
		case <-ctx.Done():
			<-v.turn
		}
	case <-ctx.Done():
	}
	writeJSON(w, http.StatusServiceUnavailable, map[string]string{"error": "too much is under way; try again"})
	return false
}

func (l *Lab) rest(v *visitor) {
	<-l.working
	<-v.turn
}

// fault is one thing that is wrong with a moat.yaml.
type fault struct {
	Line   int    `json:"line"`
	Col    int    `json:"col"`
	Field  string `json:"field,omitempty"`
	Reason string `json:"reason"`
}

// put puts a reader's moat.yaml in force for a lesson; lesson "" is for what is composed. It
// tells its faults, or what it is worth.
func (l *Lab) put(v *visitor, lesson, text string) (*config.Loaded, []fault) {
	loaded, err := l.configure(v, text, true)
	if err != nil {
		return nil, faultsIn(err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.accepted[lesson] = text
	return loaded, nil
}

// faultsIn are what is wrong with a moat.yaml, each at its place.
func faultsIn(err error) []fault {
	if faults, ok := errors.AsType[config.Faults](err); ok {
		return faultsOf(faults)
	}
	return []fault{{Line: 1, Col: 1, Reason: err.Error()}}
}

// serveCheck judges a moat.yaml while it is being written. Nothing comes of it.
func (l *Lab) serveCheck(w http.ResponseWriter, r *http.Request, v *visitor) {
	var a struct {
		Text string `json:"text"`
	}
	if !asked(w, r, &a) || !l.work(w, r, v) {
		return
	}
	defer l.rest(v)
	loaded, err := l.compile(v, a.Text)
	if err != nil {
		writeJSON(w, http.StatusOK, map[string]any{"ok": false, "faults": faultsIn(err)})
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"ok": true, "faults": []fault{}, "warnings": faultsOf(loaded.Warnings)})
}

func (l *Lab) serveConfig(w http.ResponseWriter, r *http.Request, v *visitor) {
	var a struct {
		Text string `json:"text"`
	}
	if !asked(w, r, &a) || !l.work(w, r, v) {
		return
	}
	defer l.rest(v)
	loaded, faults := l.put(v, "", a.Text)
	if faults != nil {
		writeJSON(w, http.StatusOK, map[string]any{"ok": false, "faults": faults})
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"ok": true, "faults": []fault{}, "warnings": faultsOf(loaded.Warnings)})
}

// serveDefend puts a moat.yaml in force and runs the battery of the lesson.
func (l *Lab) serveDefend(w http.ResponseWriter, r *http.Request, v *visitor) {
	var a struct {
		Lesson string `json:"lesson"`
		Text   string `json:"text"`
	}
	if !asked(w, r, &a) {
		return
	}
	lesson := l.lesson(a.Lesson)
	if lesson == nil || lesson.Mend == nil {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": "there is no such lesson, or nothing to mend in it"})
		return
	}
	if !l.work(w, r, v) {
		return
	}
	defer l.rest(v)
	loaded, faults := l.put(v, a.Lesson, a.Text)
	if faults != nil {
		writeJSON(w, http.StatusOK, Defended{Faults: faults, Warnings: []fault{}, Checks: []Check{}})
		return
	}
	d, err := l.defend(r.Context(), v, lesson, loaded)
	if err != nil {
		writeJSON(w, http.StatusInternalServerError, map[string]string{"error": err.Error()})
		return
	}
	if d.Passed() {
		v.achieve(map[string]progress{a.Lesson: {Mended: true}})
	}
	writeJSON(w, http.StatusOK, d)
}

// progress is how far a reader has come with a lesson.
type progress struct {
	// Predicted is how many of Of questions were answered right.
	Predicted int  `json:"predicted"`
	Of        int  `json:"of"`
	Mended    bool `json:"mended"`
}

// serveProgress merges what the page of one origin knows with what those of others have told.
func (l *Lab) serveProgress(w http.ResponseWriter, r *http.Request, v *visitor) {
	var told map[string]progress
	if !asked(w, r, &told) {
		return
	}
	for name, p := range told {
		if l.lesson(name) == nil || p.Of < 0 || p.Of > maxFields || p.Predicted < 0 || p.Predicted > p.Of {
			delete(told, name) // of an older lab, perhaps
		}
	}
	writeJSON(w, http.StatusOK, v.achieve(told))
}

// achieve adds to the visitor's progress, and returns all of it.
func (v *visitor) achieve(told map[string]progress) map[string]progress {
	v.mu.Lock()
	defer v.mu.Unlock()
	for name, p := range told {
		best := v.progress[name]
		mended := best.Mended || p.Mended
		if p.Predicted > best.Predicted || p.Predicted == best.Predicted && p.Of > best.Of {
			best = p
		}
		best.Mended = mended
		v.progress[name] = best
	}
	return maps.Clone(v.progress)
}

func faultsOf(all config.Faults) []fault {
	out := []fault{}
	for _, f := range all {
		reason := f.Reason
		if f.Value != "" {
			reason = fmt.Sprintf("%q: %s", f.Value, reason)
		}
		out = append(out, fault{f.Line, f.Col, f.What, reason})
	}
	return out
}

// maxListeners is how many tabs of a visitor are told what happens.
const maxListeners = 32

// serveEvents streams the ledger as server-sent events.
func (v *visitor) serveEvents(w http.ResponseWriter, r *http.Request) {
	if v.listening.Add(1) > maxListeners {
		v.listening.Add(-1)
		writeJSON(w, http.StatusTooManyRequests, map[string]string{"error": "too many tabs listen already"})
		return
	}
	defer v.listening.Add(-1)
	seq, _ := strconv.Atoi(r.Header.Get("Last-Event-ID"))
	w.Header().Set("Content-Type", "text/event-stream")
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{})
	beat := time.NewTicker(15 * time.Second)
	defer beat.Stop()
	for {
		rc.SetWriteDeadline(time.Now().Add(time.Minute)) //nolint:errcheck // a recorder in a test has none
		events, changed := v.ledger.since(seq)
		for _, e := range events {
			text, err := json.Marshal(e)
			if err != nil {
				panic(err) // it is made of strings and numbers
			}
			fmt.Fprintf(w, "id: %d\ndata: %s\n\n", e.Seq, text)
			seq = e.Seq
		}
		if len(events) == 0 {
			fmt.Fprint(w, ": here\n\n")
		}
		if rc.Flush() != nil {
			return
		}
		select {
		case <-changed:
		case <-beat.C:
		case <-r.Context().Done():
			return
		}
	}
}
