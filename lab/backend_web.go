package lab

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/template"
)

// inWorld returns a URL if it is of the visitor's world. A redirect to any other would be an
// open one, and of use to strangers.
func (v *visitor) inWorld(to string) (location string, ok bool) {
	u, err := url.Parse(to)
	if err != nil || u.User != nil || !slices.Contains(slices.Collect(maps.Values(v.origins)), u.Scheme+"://"+u.Host) {
		return "", false
	}
	return u.String(), true
}

// redirection is what a request to a redirect asks for.
func (v *visitor) redirection(w http.ResponseWriter, r *http.Request) (status int, ok bool) {
	q := r.URL.Query()
	status = http.StatusFound
	if text := q.Get("status"); text != "" {
		status, _ = strconv.Atoi(text)
	}
	if !slices.Contains([]int{301, 302, 303, 307, 308}, status) {
		refuse(w, http.StatusBadRequest, "status: not 301, 302, 303, 307 or 308")
		return 0, false
	}
	to, ok := v.inWorld(q.Get("to"))
	if !ok {
		refuse(w, http.StatusBadRequest, "to: not a URL of this lab: redirects lead to no other")
		return 0, false
	}
	w.Header().Set("Location", to)
	return status, true
}

func (v *visitor) redirect(w http.ResponseWriter, r *http.Request) {
	if status, ok := v.redirection(w, r); ok {
		v.ran(r, "led on to "+w.Header().Get("Location"))
		w.WriteHeader(status)
	}
}

// hop is a redirect at a site, which every origin may follow: a stranger's server says
// whatever suits it.
func (v *visitor) hop(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	if origin := r.Header.Get("Origin"); origin != "" {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	h.Set("Vary", "Origin")
	h.Set("Cache-Control", "no-store")
	if isPreflight(r) {
		h.Set("Access-Control-Allow-Methods", r.Header.Get("Access-Control-Request-Method"))
		h.Set("Access-Control-Allow-Headers", r.Header.Get("Access-Control-Request-Headers"))
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if status, ok := v.redirection(w, r); ok {
		w.WriteHeader(status)
	}
}

// tally is what the API counts during a run.
type tally struct {
	served int            // answers of /cached
	asked  map[string]int // calls by address, of /limited
}

// cached gives an answer that a browser may keep. Its number tells whether it is a new one.
func (v *visitor) cached(w http.ResponseWriter, r *http.Request) {
	age := 60
	if text := r.URL.Query().Get("max-age"); text != "" {
		age, _ = strconv.Atoi(text)
	}
	v.mu.Lock()
	v.tally.served++
	n := v.tally.served
	v.mu.Unlock()
	w.Header().Set("Cache-Control", fmt.Sprintf("max-age=%d", max(age, 0)))
	v.ran(r, fmt.Sprintf("gave answer number %d", n))
	v.as(w, r, fmt.Sprintf("answer number %d", n))
}

// as answers in the form that the element which asks can use.
func (v *visitor) as(w http.ResponseWriter, r *http.Request, text string) {
	form := r.URL.Query().Get("as")
	if form == "" {
		form = formOf(r)
	}
	var media, body string
	switch form {
	case "image":
		media, body = "image/svg+xml", `<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>`
	case "script":
		media, body = "text/javascript", "/* "+strings.ReplaceAll(text, "*", "")+" */"
	case "html":
		media, body = "text/html; charset=utf-8", "<!doctype html><title>The bank</title><p>"+template.HTMLEscapeString(text)
	default:
		b, _ := json.Marshal(map[string]string{"done": text})
		media, body = "application/json", string(b)
	}
	w.Header().Set("Content-Type", media)
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write([]byte(body))
}

func formOf(r *http.Request) string {
	accept := r.Header.Get("Accept")
	switch dest := r.Header.Get("Sec-Fetch-Dest"); {
	case dest == "script":
		return "script"
	case strings.HasPrefix(accept, "image/"):
		return "image"
	case strings.Contains(accept, "text/html"):
		return "html"
	}
	return "json"
}
