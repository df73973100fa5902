package lab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// fields reads what a request says, from its query and its body: a form of any kind, or
// JSON of any content type, as lenient body parsers do. That leniency is why JSON can arrive
// without a preflight. The body wins.
func fields(r *http.Request) url.Values {
	all := r.URL.Query()
	body, _ := io.ReadAll(io.LimitReader(r.Body, maxBody))
	maps.Copy(all, bodyFields(r.Header.Get("Content-Type"), body))
	return all
}

func bodyFields(contentType string, body []byte) url.Values {
	object := map[string]any{}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if d.Decode(&object) == nil {
		all := url.Values{}
		for name, value := range object {
			all.Set(name, fmt.Sprint(value))
		}
		return all
	}
	media, params, _ := mime.ParseMediaType(contentType)
	if media == "multipart/form-data" {
		form, err := multipart.NewReader(bytes.NewReader(body), params["boundary"]).ReadForm(maxBody)
		if err != nil {
			return nil
		}
		defer form.RemoveAll() //nolint:errcheck // no part is large enough for a file
		return form.Value
	}
	// A form of text/plain has a line for each field.
	text := strings.NewReplacer("\r\n", "&", "\n", "&").Replace(strings.TrimSpace(string(body)))
	all, _ := url.ParseQuery(text)
	return all
}

// data is the simple read; it stands for work that costs.
func (v *visitor) data(w http.ResponseWriter, r *http.Request) {
	v.ran(r, "read the data")
	writeJSON(w, http.StatusOK, map[string]any{"items": []string{"coal", "copper", "grain"}})
}

// pay moves money for whoever asks, as the article has it.
func (v *visitor) pay(w http.ResponseWriter, r *http.Request) {
	v.move(w, r, fields(r))
}

func (v *visitor) move(w http.ResponseWriter, r *http.Request, f url.Values) {
	amount, _ := strconv.Atoi(f.Get("amount"))
	did := v.transfer(amount)
	v.ran(r, did)
	writeJSON(w, http.StatusOK, map[string]any{"done": did, "alice": v.booksNow().Alice})
}

// transfer moves money from alice to mallory, and says what came of it.
func (v *visitor) transfer(amount int) (did string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if amount <= 0 || amount > v.books.Alice {
		return fmt.Sprintf("moved nothing: %d was asked for, and alice has %d", amount, v.books.Alice)
	}
	v.books.Alice -= amount
	v.books.Mallory += amount
	return fmt.Sprintf("moved %d from alice to mallory", amount)
}

// sessionCookies are the names that the session's cookie may have.
var sessionCookies = []string{"session", "__Host-session", "__Secure-session"}

// signedIn is a handler for whoever has alice's session cookie.
func (v *visitor) signedIn(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !slices.ContainsFunc(r.Cookies(), func(c *http.Cookie) bool {
			return slices.Contains(sessionCookies, c.Name) && c.Value == v.session
		}) {
			refuse(w, http.StatusUnauthorized, "no session: this request came without alice's session cookie")
			return
		}
		h(w, r)
	}
}

func (v *visitor) me(w http.ResponseWriter, r *http.Request) {
	v.ran(r, "read alice's balance")
	writeJSON(w, http.StatusOK, map[string]any{"user": "alice", "balance": v.booksNow().Alice})
}

// token tells the token of the bank's own forms. Who may read it is up to CORS.
func (v *visitor) token(w http.ResponseWriter, r *http.Request) {
	v.ran(r, "gave out the CSRF token")
	writeJSON(w, http.StatusOK, map[string]string{"csrf_token": v.csrf})
}

// paySafely moves money for whoever knows the session's token.
func (v *visitor) paySafely(w http.ResponseWriter, r *http.Request) {
	f := fields(r)
	if r.Header.Get("X-CSRF-Token") != v.csrf && f.Get("csrf_token") != v.csrf {
		refuse(w, http.StatusForbidden, "no CSRF token: it has to be in the header X-CSRF-Token or the field csrf_token")
		return
	}
	v.move(w, r, f)
}

// setCookies sends the run's cookies, or those of a name.
func (v *visitor) setCookies(w http.ResponseWriter, name string) (set []string) {
	v.mu.Lock()
	lines := v.cookies
	v.mu.Unlock()
	for _, line := range lines {
		its, _, _ := strings.Cut(line, "=")
		if its = strings.TrimSpace(its); name == "" || its == name {
			w.Header().Add("Set-Cookie", strings.ReplaceAll(line, "{session}", v.session))
			set = append(set, its)
		}
	}
	return set
}

// signIn sets the cookies of the run, and leads back to the page that the reader came from.
func (v *visitor) signIn(w http.ResponseWriter, r *http.Request) {
	back, ok := v.back(w, r)
	if !ok {
		return
	}
	v.forget(w)
	set := v.setCookies(w, "")
	v.ran(r, "signed alice in")
	lead(w, back, map[string]any{"done": "signed in as alice", "cookies": set})
}

// forget ends the sessions of runs before. A cookie is only replaced by one of the same name,
// domain and partition, and with another's session in the jar a run would show nothing.
func (v *visitor) forget(w http.ResponseWriter) {
	for _, line := range []string{
		"session=", "session=; Domain=" + v.lab.o.Names.site(v.id), "session=; Secure; Partitioned", "__Host-session=; Secure", "__Secure-session=; Secure",
	} {
		// As strict as moat would make it, or it would have something to say about each.
		w.Header().Add("Set-Cookie", line+"; Path=/; Max-Age=0; HttpOnly; SameSite=Lax")
	}
}

// signOut clears the run's cookies. A cookie is replaced only by one with the same
// attributes, so each line goes out again with its time run down.
func (v *visitor) signOut(w http.ResponseWriter, r *http.Request) {
	back, ok := v.back(w, r)
	if !ok {
		return
	}
	set := v.setCookies(w, "")
	lines := w.Header()["Set-Cookie"]
	for i := range lines {
		lines[i] += "; Max-Age=0"
	}
	v.ran(r, "signed alice out")
	lead(w, back, map[string]any{"done": "signed out", "cookies": set})
}

// back is where a request wants to be led to afterwards; "" is nowhere.
func (v *visitor) back(w http.ResponseWriter, r *http.Request) (back string, ok bool) {
	if back = r.URL.Query().Get("back"); back == "" {
		return "", true
	}
	if back, ok = v.inWorld(back); !ok {
		refuse(w, http.StatusBadRequest, "back: not a URL of this lab: redirects lead to no other")
	}
	return back, ok
}

func lead(w http.ResponseWriter, back string, otherwise any) {
	if back == "" {
		writeJSON(w, http.StatusOK, otherwise)
		return
	}
	w.Header().Set("Location", back)
	w.WriteHeader(http.StatusSeeOther)
}

// setCookie sets those of the run's cookies that have the name.
func (v *visitor) setCookie(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("name")
	set := v.setCookies(w, name)
	if name != "" && set == nil {
		refuse(w, http.StatusNotFound, fmt.Sprintf("the run has no cookie %.40q", name))
		return
	}
	v.ran(r, "sent Set-Cookie")
	writeJSON(w, http.StatusOK, map[string]any{"cookies": set})
}

// echoCookies tells which cookies came. The ledger has their names only.
func (v *visitor) echoCookies(w http.ResponseWriter, r *http.Request) {
	type pair struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	pairs, names := []pair{}, []string{}
	for _, c := range r.Cookies() {
		pairs, names = append(pairs, pair{c.Name, c.Value}), append(names, c.Name)
	}
	did := "saw no cookie"
	if len(names) > 0 {
		did = "saw the cookies " + strings.Join(names, ", ")
	}
	v.ran(r, did)
	writeJSON(w, http.StatusOK, map[string]any{"cookies": pairs})
}

func (v *visitor) notes(w http.ResponseWriter, r *http.Request) {
	v.ran(r, "listed the notes")
	v.as(w, r, fmt.Sprintf("alice's notes: %v", v.booksNow().Notes))
}

// deleteNote is the GET that changes things.
func (v *visitor) deleteNote(w http.ResponseWriter, r *http.Request) {
	did := v.removeNote(r.URL.Query().Get("id"))
	v.ran(r, did)
	v.as(w, r, did)
}

// removeNote deletes a note, and says what came of it.
func (v *visitor) removeNote(id string) (did string) {
	n, _ := strconv.Atoi(id)
	v.mu.Lock()
	defer v.mu.Unlock()
	i := slices.Index(v.books.Notes, n)
	if i < 0 {
		return fmt.Sprintf("deleted nothing: there is no note %.20q", id)
	}
	// A new list: the ledger has the one before.
	v.books.Notes = slices.Delete(slices.Clone(v.books.Notes), i, i+1)
	return fmt.Sprintf("deleted note %d", n)
}

// note reads or deletes a note. A POST is taken for what it says that it is, which some
// frameworks do for forms: then whoever admits POST has admitted DELETE.
func (v *visitor) note(w http.ResponseWriter, r *http.Request) {
	id, method := r.PathValue("id"), r.Method
	if method == http.MethodPost {
		method = fields(r).Get("_method")
		if override := r.Header.Get("X-HTTP-Method-Override"); override != "" {
			method = override
		}
	}
	did := fmt.Sprintf("read note %.20q", id)
	switch strings.ToUpper(method) {
	case http.MethodDelete:
		did = v.removeNote(id)
	case http.MethodGet, http.MethodHead:
	case "":
		did = fmt.Sprintf("wrote note %.20q", id)
	default:
		refuse(w, http.StatusMethodNotAllowed, "a note is read (GET), written (POST) or deleted (DELETE)")
		return
	}
	v.ran(r, did)
	writeJSON(w, http.StatusOK, map[string]string{"done": did})
}
