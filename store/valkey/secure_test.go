package valkey_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard/budget"
	"github.com/moat-gateway/moat/guard/identity/session"
	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/store/valkey"
	"github.com/moat-gateway/moat/store/valkey/valkeytest"
)

const secret = "correct-horse"

// rules are those that the package documentation tells an operator to give.
func rules(t *testing.T, mode string) string {
	t.Helper()
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(doc)) {
		if rule, ok := strings.CutPrefix(line, "//	user moat-"+mode+" "); ok {
			return "user moat " + strings.ReplaceAll(strings.TrimSpace(rule), ">PASSWORD", ">"+secret)
		}
	}
	t.Fatalf("the package documentation has no rules for %s", mode)
	return ""
}

// moreRules are what the documentation adds for tickets, sessions and budgets.
func moreRules(t *testing.T) string {
	t.Helper()
	return strings.TrimPrefix(rules(t, "tickets"), "user moat ") + " " + strings.TrimPrefix(rules(t, "sessions"), "user moat ") + " " + strings.TrimPrefix(rules(t, "budgets"), "user moat ")
}

// exercise does all that a Store does with one server, and returns the last thing that
// went wrong.
func exercise(t *testing.T, server *valkeytest.Server, cfg valkey.Config) error {
	t.Helper()
	server.MustDo("SCRIPT", "FLUSH")
	s, err := valkey.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	leased, forced := demand("leased", slow), demand("forced", slow)
	leased.Lease, forced.Force = 5, true
	demands := []ratelimit.Demand{demand("a", slow), leased, forced}
	results := make([]ratelimit.Result, len(demands))
	if _, err := s.Take(t.Context(), demands, results); err != nil {
		return err
	}
	if _, err := s.Peek(t.Context(), demands, results); err != nil {
		return err
	}
	if err := s.Reset(t.Context(), key("a")); err != nil {
		return err
	}
	if err := exerciseTickets(t, server, s); err != nil {
		return err
	}
	if err := exerciseSessions(t, s.Sessions()); err != nil {
		return err
	}
	if err := exerciseBudgets(t, s.Budgets()); err != nil {
		return err
	}
	s.Close()
	return s.Stats().LastError
}

func exerciseSessions(t *testing.T, s *valkey.Sessions) error {
	t.Helper()
	e := session.Entry{ID: session.ID{1}, Indexes: []session.ID{{2}}, Sealed: []byte("old"), Expires: time.Now().Add(time.Minute)}
	_, put := s.Put(t.Context(), e)
	_, _, get := s.Get(t.Context(), e.ID)
	touch := s.Touch(t.Context(), e.ID, e.Expires)
	_, replace := s.Replace(t.Context(), e.ID, e.Sealed, []byte("new"))
	return errors.Join(put, get, touch, replace, s.DeleteAll(t.Context(), e.Indexes[0]), s.Delete(t.Context(), e.ID))
}

func exerciseBudgets(t *testing.T, s *valkey.Budgets) error {
	t.Helper()
	r := &budget.Rule{Name: "x", By: budget.ByVisitor, Per: budget.Month, Cap: budget.Amount{Requests: 5}}
	res, _, err := reserve(t, s, r, "a", oneRequest)
	if err != nil {
		return err
	}
	settle := s.Settle(t.Context(), []budget.Change{{Account: res.Account, Add: oneRequest}})
	_, use := s.Usage(t.Context(), r, 1)
	_, one := s.Reset(t.Context(), r, "a")
	_, all := s.Reset(t.Context(), r, "")
	stop := s.Stop(t.Context(), true)
	_, look := s.Stopped(t.Context())
	return errors.Join(settle, use, one, all, stop, look, s.Stop(t.Context(), false))
}

func exerciseTickets(t *testing.T, server *valkeytest.Server, s *valkey.Store) error {
	t.Helper()
	tickets := s.Tickets(0)
	l, number, err := tickets.Number(t.Context())
	if err != nil {
		return err
	}
	if _, err := tickets.Use(t.Context(), l, number, 0); err != nil {
		return err
	}
	if _, err := tickets.Once(t.Context(), 0, 0, time.Now().Add(time.Second)); err != nil {
		return err
	}
	// It may end the lineage.
	server.MustDo("HSET", "moat:{tickets}", "evicted", "1")
	tickets.Once(t.Context(), 0, 0, time.Now().Add(time.Second))
	eventually(t, "a lineage is known again, or it is known why not", func() bool {
		_, _, ok := tickets.Lineage()
		return ok || s.Stats().LastError != nil
	})
	return nil
}

func TestTLSAndAUserWhoMayDoOnlyWhatTheDocumentationSays(t *testing.T) {
	authority := valkeytest.NewAuthority(t)
	all := rules(t, "standalone") + " " + moreRules(t)
	server := valkeytest.StartTLS(t, authority, time.Now().Add(time.Hour), all)
	cfg := patient(valkey.Config{Addresses: []string{server.Addr}, Username: "moat", Password: secret, TLS: authority.Trust()})
	if err := exercise(t, server, cfg); err != nil {
		t.Error(err)
	}
	// It is the prefix that the user may use, and no other.
	other := cfg
	other.Prefix = "other"
	if err := exercise(t, server, other); err == nil {
		t.Error("it may use another prefix")
	} else {
		hasAll(t, err.Error(), "NOPERM", "lacks a permission")
	}
	// Each of the permissions is needed.
	for rule := range strings.FieldsSeq(all) {
		command, ok := strings.CutPrefix(rule, "+")
		if !ok {
			continue
		}
		server.MustDo("ACL", "SETUSER", "moat", "-"+command)
		if exercise(t, server, cfg) == nil {
			t.Errorf("the documentation gives %s, which is not needed", rule)
		}
		server.MustDo("ACL", "SETUSER", "moat", rule)
	}
}

func TestWrongPasswordsAndCertificates(t *testing.T) {
	authority, stranger := valkeytest.NewAuthority(t), valkeytest.NewAuthority(t)
	server := valkeytest.StartTLS(t, authority, time.Now().Add(time.Hour), rules(t, "standalone"))
	expired := valkeytest.StartTLS(t, authority, time.Now().Add(-time.Hour))
	plain := valkeytest.Start(t)
	good := patient(valkey.Config{Addresses: []string{server.Addr}, Username: "moat", Password: secret, TLS: authority.Trust()})
	for name, c := range map[string]struct {
		change func(*valkey.Config)
		words  []string
	}{
		"wrong password":    {func(c *valkey.Config) { c.Password = secret + "!" }, []string{"WRONGPASS", "check the user name and the password"}},
		"wrong user":        {func(c *valkey.Config) { c.Username = "nobody" }, []string{"WRONGPASS"}},
		"no password":       {func(c *valkey.Config) { c.Username, c.Password = "", "" }, []string{"NOAUTH", "user name"}},
		"wrong authority":   {func(c *valkey.Config) { c.TLS = stranger.Trust() }, []string{server.Addr, "unknown authority", "give its authority"}},
		"wrong name":        {func(c *valkey.Config) { c.TLS.ServerName = "elsewhere.example" }, []string{"elsewhere.example"}},
		"expired":           {func(c *valkey.Config) { c.Addresses = []string{expired.Addr} }, []string{expired.Addr, "expired"}},
		"no TLS to TLS":     {func(c *valkey.Config) { c.TLS = nil }, []string{server.Addr, "does the server want TLS"}},
		"a name of no host": {func(c *valkey.Config) { c.Addresses = []string{"valkey.invalid:6379"} }, []string{"valkey.invalid"}},
		"no cluster":        {func(c *valkey.Config) { *c = valkey.Config{Addresses: []string{plain.Addr}, Mode: valkey.Cluster} }, []string{"not part of a cluster"}},
		"TLS to no TLS":     {func(c *valkey.Config) { c.Addresses = []string{plain.Addr} }, []string{plain.Addr, "no TLS handshake"}},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "TLS to no TLS" {
				thorough(t) // a server waits for more
			}
			cfg := good
			cfg.TLS = cfg.TLS.Clone()
			c.change(&cfg)
			s := client{t, open(t, cfg)}
			var err error
			eventually(t, "it is known why", func() bool {
				err = s.unavailable(demand("a", slow))
				return !strings.Contains(err.Error(), "not connected yet")
			})
			hasAll(t, err.Error(), c.words...)
			for _, text := range []string{err.Error(), s.Stats().LastError.Error()} {
				if strings.Contains(text, secret) {
					t.Errorf("it tells the password: %s", text)
				}
			}
		})
	}
}

func TestAConfigDoesNotTellPasswords(t *testing.T) {
	cfg := valkey.Config{
		Addresses: []string{"a.example:1"}, Mode: valkey.Sentinel, Master: "limits", Username: "moat", Password: secret,
		SentinelUsername: "watcher", SentinelPassword: secret,
	}
	var logged strings.Builder
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "cfg", cfg, "pointer", &cfg)
	marshalled, err := json.Marshal(struct{ C *valkey.Config }{&cfg})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		fmt.Sprint(cfg), fmt.Sprintf("%v %+v %#v %s %q %x %d", cfg, cfg, cfg, cfg, cfg, cfg, cfg),
		fmt.Sprintf("%v %+v %#v", &cfg, &cfg, struct{ C valkey.Config }{cfg}), logged.String(), string(marshalled),
	} {
		if strings.Contains(text, secret) || !strings.Contains(text, "a.example:1") {
			t.Errorf("%s", text)
		}
	}
}

func TestAWrongConfigIsToldAtOnce(t *testing.T) {
	good := valkey.Config{Addresses: []string{"127.0.0.1:1"}}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*valkey.Config){
		"no address":                   func(c *valkey.Config) { c.Addresses = nil },
		`"localhost" is not host:port`: func(c *valkey.Config) { c.Addresses = []string{"localhost"} },
		`":1" is not host:port`:        func(c *valkey.Config) { c.Addresses = []string{":1"} },
		`"h:0" is not host:port`:       func(c *valkey.Config) { c.Addresses = []string{"h:0"} },
		`"h:http" is not host:port`:    func(c *valkey.Config) { c.Addresses = []string{"h:http"} },
		"several are for":              func(c *valkey.Config) { c.Addresses = []string{"a:1", "b:1"} },
		"needs the name of the master": func(c *valkey.Config) { c.Mode = valkey.Sentinel },
		"does not ask any":             func(c *valkey.Config) { c.Master = "x" },
		"only database 0":              func(c *valkey.Config) { c.Mode, c.DB = valkey.Cluster, 1 },
		"is negative":                  func(c *valkey.Config) { c.DB = -1 },
		"without a password":           func(c *valkey.Config) { c.Username = "x" },
		"none of standalone":           func(c *valkey.Config) { c.Mode = 7 },
		`prefix "a{b"`:                 func(c *valkey.Config) { c.Prefix = "a{b" },
		"between 5ms and 1s":           func(c *valkey.Config) { c.Timeout = time.Millisecond },
		"2s is not between":            func(c *valkey.Config) { c.Timeout = 2 * time.Second },
	} {
		cfg := good
		change(&cfg)
		s, err := valkey.Open(t.Context(), cfg)
		if err == nil {
			s.Close()
			t.Errorf("want an error with %q", want)
			continue
		}
		hasAll(t, err.Error(), "store/valkey: ", want)
	}
	// All faults are told at once.
	cfg := valkey.Config{Mode: valkey.Sentinel, DB: -1}
	hasAll(t, cfg.Check().Error(), "no address", "name of the master", "negative")
}
