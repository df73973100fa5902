package lab

import (
	"encoding/json"
	"net/http"
)

// The API's endpoints. Any method does for those without one; a plain OPTIONS runs nothing.
// "session" is one that does it only for whoever has alice's session cookie, and answers 401
// otherwise. What runs is noted in the ledger as "ran"; a refusal is not.
//
//	path                     what it does                                          wrong on purpose
//	/data                    reads; stands for work that costs                     -
//	/transfer?amount=        moves money from alice to mallory                     asks nobody
//	GET /sign-in?back=URL    sets the run's cookies, and leads back by 303         -
//	GET /sign-out?back=URL   clears them                                           -
//	GET /me                  session: who it is, and the balance                   -
//	/account/transfer?amount=  session: moves money                                believes the cookie alone
//	GET /account/token       session: the CSRF token, {"csrf_token": …}            -
//	/account/safe-transfer   session and the token, in X-CSRF-Token or the field   -
//	                         csrf_token; 403 without it
//	GET /notes               lists alice's notes                                   -
//	GET /notes/delete?id=    deletes a note                                        a GET that changes things
//	GET /notes/{id}          reads a note                                          -
//	DELETE /notes/{id}       deletes it                                            -
//	POST /notes/{id}         overwrites it, unless X-HTTP-Method-Override or       lets a POST pass for a DELETE
//	                         the field _method says DELETE
//	GET /cookie?name=        sets those of the run's cookies that have the name    -
//	/cookies                 tells which cookies came, in order                    -
//	GET /redirect?to=&status=  leads to a URL of the lab's world, by 302, 303,     -
//	                         307 or 308; any other URL is a 400
//	GET /cached?max-age=     may be cached, a minute if nothing is said            Vary is left to the rules
//	GET /ws                  session: a WebSocket that tells the balance, and      believes any Origin
//	                         moves money for {"amount": n}
//	GET /stream              session: the same as server-sent events, read only    -
//	GET /jwt/token           a token for alice: ES256, five minutes                gives it to anybody
//	GET /jwt/jwks            the issuer's public key, as a JSON Web Key Set        -
//	GET /jwt/strict          reads the account of whom the Bearer token is for     -
//	GET /jwt/none            the same                                              believes alg none
//	GET /jwt/confused        the same                                              HS256, keyed with the text of /jwt/jwks
//	GET /jwt/embedded        the same                                              believes the key in the token's jwk
//	GET /jwt/unchecked       the same                                              looks at no signature
//	GET /jwt/expired         the same                                              looks at no exp
//	/ask?prompt=             asks an AI model, for 2 cents                         asks nobody who he is
//	/limited                 the same, thrice in a run for each address            believes X-Forwarded-For
//	GET /proxy?url=          fetches what a URL holds                              any URL; see backend_proxy.go
//
// Fields (amount, csrf_token, _method, prompt) may be in the query, in a form of any kind or
// in JSON of any content type. /notes/delete, /notes and /cached answer as an image, a
// script, a page or JSON: as ?as=image|script|html|json says, or else as it is asked for.
//
// Each of the sites has /.lab/hop?to=&status=: a redirect as /redirect is,
// which every origin may follow.

// api is the bank's API as most are: middleware that answers what its rules say, which is
// for browsers, and handlers that do what they are asked to.
func (v *visitor) api() http.Handler {
	mux := http.NewServeMux()
	for pattern, handler := range map[string]http.HandlerFunc{
		"/data":                  v.data,
		"/transfer":              v.pay,
		"GET /sign-in":           v.signIn,
		"GET /sign-out":          v.signOut,
		"GET /me":                v.signedIn(v.me),
		"/account/transfer":      v.signedIn(v.pay),
		"GET /account/token":     v.signedIn(v.token),
		"/account/safe-transfer": v.signedIn(v.paySafely),
		"GET /notes":             v.notes,
		"GET /notes/delete":      v.deleteNote,
		"/notes/{id}":            v.note,
		"GET /cookie":            v.setCookie,
		"/cookies":               v.echoCookies,
		"GET /redirect":          v.redirect,
		"GET /cached":            v.cached,
		"GET /ws":                v.signedIn(v.socket),
		"GET /stream":            v.signedIn(v.stream),
		"GET /jwt/token":         v.issueJWT,
		"GET /jwt/jwks":          v.serveJWKS,
		"GET /jwt/{check}":       v.readByJWT,
		"/ask":                   v.askModel,
		"/limited":               v.limited,
		"GET /proxy":             v.proxy,
	} {
		mux.HandleFunc(pattern, handler)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		preflight := isPreflight(r)
		w.Header().Set("Cache-Control", "no-store")
		status := answer(v.rulesInForce(), r, preflight, w.Header())
		switch {
		case preflight || r.Method == http.MethodOptions:
			if status == 0 {
				status = http.StatusNoContent
			}
			w.WriteHeader(status)
			return
		case status != 0:
			w = &fixedStatus{w, status}
		}
		mux.ServeHTTP(w, r)
	})
}

// fixedStatus answers with the status of the rules.
type fixedStatus struct {
	http.ResponseWriter
	status int
}

func (w *fixedStatus) WriteHeader(status int) {
	if status != http.StatusSwitchingProtocols { // what follows that is no answer any more
		status = w.status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *fixedStatus) Write(b []byte) (int, error) {
	w.ResponseWriter.WriteHeader(w.status)
	return w.ResponseWriter.Write(b)
}

// Unwrap gives http.ResponseController the writer below.
func (w *fixedStatus) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, status int, why string) {
	writeJSON(w, status, map[string]string{"error": why})
}
