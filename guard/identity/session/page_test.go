package session_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity/session"
)

func TestAPersonReadsWhySigningInDidNotWork(t *testing.T) {
	w := httptest.NewRecorder()
	session.WritePage(w, guard.LoginStateUnknown, "abc123", `/.moat/login/a"b`)
	body := w.Body.String()
	for _, want := range []string{"This sign-in was not begun in this browser", `href="/.moat/login/a%22b"`, "login-state-unknown, abc123", `lang="en"`} {
		if !strings.Contains(body, want) {
			t.Errorf("lacks %s:\n%s", want, body)
		}
	}
	h := w.Header()
	if w.Code != http.StatusBadRequest || !strings.HasPrefix(h.Get("Content-Security-Policy"), "default-src 'none'") || h.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %v", w.Code, h)
	}
}
