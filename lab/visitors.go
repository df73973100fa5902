package lab

import (
	"net/http"
	"sync"
	"time"

	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/store/memory"
)

const (
	// maxVisitors bounds how many readers share a lab, and maxIdle how long one may be away.
	maxVisitors = 200
	maxIdle     = 2 * time.Hour
	// comings is how many visitors may begin from one address: a class behind one router, or
	// behind the server that ends TLS here, is one address.
	comings = 120
)

// visitors are those who are here. In a lab that is not shared that is the reader alone.
type visitors struct {
	lab *Lab
	mu  sync.Mutex
	all map[string]*visitor
}

func newVisitors(l *Lab) *visitors {
	s := &visitors{lab: l, all: map[string]*visitor{}}
	if !l.o.Names.shared {
		s.all[""] = newVisitor(l, "")
	}
	return s
}

// find returns the visitor, or nil if there is none of that id.
func (s *visitors) find(id string, now time.Time) *visitor {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.all[id]
	if v != nil {
		v.seen = now
	}
	return v
}

// come lets a new visitor in, or returns nil if the lab is full. Those who have been away for
// long are forgotten first.
func (s *visitors) come(now time.Time) *visitor {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, v := range s.all {
		if now.Sub(v.seen) > maxIdle {
			v.close()
			delete(s.all, id)
		}
	}
	if len(s.all) >= maxVisitors {
		return nil
	}
	v := newVisitor(s.lab, randomID())
	v.seen = now
	s.all[v.id] = v
	return v
}

func (s *visitors) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.all {
		v.close()
	}
}

// door is the front page of a shared lab: it lets visitors in, each to hosts of his own. Who
// has been here goes on where he was.
func (l *Lab) door() http.Handler {
	limit, err := ratelimit.New(ratelimit.Policy{Rules: []ratelimit.Rule{{
		Name: "visitors", Limit: ratelimit.Limit{Count: comings, Per: time.Minute, Burst: comings}, By: []ratelimit.Fact{ratelimit.Address},
	}}}, memory.New(tableMemory))
	if err != nil {
		panic(err) // the rule is a constant
	}
	secure := l.o.Names.scheme == "https"
	name := "lab-visitor"
	if secure {
		name = "__Host-" + name
	}
	come := limit.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := l.visitors.come(time.Now())
		if v == nil {
			http.Error(w, "The lab is full. Try again later, or run your own: moat lab", http.StatusServiceUnavailable)
			return
		}
		http.SetCookie(w, &http.Cookie{Name: name, Value: v.id, Path: "/", MaxAge: int(maxIdle / time.Second), Secure: secure, HttpOnly: true, SameSite: http.SameSiteLaxMode}) //nolint:gosec // Secure where there is TLS
		http.Redirect(w, r, l.o.Names.Origin(RoleLab, v.id)+"/", http.StatusSeeOther)
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Referrer-Policy", "no-referrer")
		switch {
		case r.URL.Path != "/":
			http.NotFound(w, r)
		case r.Method != http.MethodGet:
			http.Error(w, "GET / is all that there is here.", http.StatusMethodNotAllowed)
		case r.Header.Get("Sec-Fetch-Mode") != "" && r.Header.Get("Sec-Fetch-Mode") != "navigate":
			// No page of another site fills the lab with visitors by images.
			http.Error(w, "Come by yourself.", http.StatusForbidden)
		default:
			if c, err := r.Cookie(name); err == nil && c.Value != "" && l.visitors.find(c.Value, time.Now()) != nil {
				http.Redirect(w, r, l.o.Names.Origin(RoleLab, c.Value)+"/", http.StatusSeeOther)
				return
			}
			come.ServeHTTP(w, r)
		}
	})
}
