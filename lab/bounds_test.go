package lab

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

const withUsers = head + "auth: {u: {jwt: {issuer: 'https://issuer.bank.test', audience: bank-api, algorithms: [ES256], jwks_file: jwks.json}}}\n"

func ifRoute(i int, condition string) string {
	return fmt.Sprintf("  - match: /r%d\n    upstream: bank\n    auth: u\n    authorize: {if: %s}\n", i, condition)
}

// patience is far more than anything bounded takes on a busy machine under the race detector,
// and far less than what is not bounded takes.
const patience = 20 * time.Second

// spent is what a function allocates, and how long it takes.
func spent(f func()) (mib uint64, took time.Duration) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	f()
	took = time.Since(start)
	runtime.ReadMemStats(&after)
	return (after.TotalAlloc - before.TotalAlloc) >> 20, took
}

// inUse are the MiB that are not garbage.
func inUse() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc >> 20)
}

// TestPatternsAreBounded: a stranger's few bytes could stand for gigabytes.
func TestPatternsAreBounded(t *testing.T) {
	l := openWith(t, nil)
	many := strings.TrimSuffix(strings.Repeat(`''.matches(r'^[^\pL]{900}$')||`, 60), "||")
	routes := func(n int, condition string) (text string) {
		for i := range n {
			text += ifRoute(i, condition)
		}
		return withUsers + "routes:\n" + text
	}
	one := func(condition string) string { return routes(1, condition) }
	for name, c := range map[string]struct{ text, want string }{
		"large classes":     {one(`"` + strings.ReplaceAll(many, `\`, `\\`) + `"`), "no more than 8 times"},
		"one large class":   {one(`"''.matches('^\\\\PL$')"`), `no \p`},
		"an escape of YAML": {one(`"''.m\x61tches('c{900}')"`), "nothing more than 50"},
		"an escape of CEL":  {one(`"''.matches('c\\x7b900}')"`), "numbered escapes"},
		"an octal one":      {one(`"''.matches('c\\173900}')"`), "numbered escapes"},
		"a range":           {one(`"''.matches('c{1,900}')"`), "nothing more than 50"},
		"no end":            {one(`"''.matches('c{900,}')"`), "nothing more than 50"},
		"nested":            {one(`"''.matches('(c{20}){20}')"`), "no group"},
		"many repetitions":  {one(`"''.matches('c{50}c{50}c{50}')"`), "too many"},
		"long":              {one(`"''.matches('` + strings.Repeat("c", maxPatterns) + `')"`), "1024 bytes"},
		"aliases":           {strings.Replace(routes(2, "*c"), "*c", `&c "''.matches('c')"`, 1), "no aliases"},
		"many routes":       {routes(65, "'true'") + ifRoute(65, `"''.matches('c')"`), "64 routes"},
	} {
		t.Run(name, func(t *testing.T) {
			mib, took := spent(func() {
				_, err := l.compile(reader(l), c.text)
				if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "in the lab") {
					t.Errorf("compile: %v; want %q", err, c.want)
				}
				a, err := audit(l.fillConfig(reader(l), c.text), time.Now())
				if err != nil || len(a.Faults) != 1 || !strings.Contains(a.Faults[0].Reason, c.want) {
					t.Errorf("audit: %+v, %v; want %q", a, err, c.want)
				}
			})
			if mib > 20 || took > patience {
				t.Errorf("%d MiB and %v", mib, took)
			}
		})
	}
	for name, text := range map[string]string{
		"repetitions":   "app.use(cors({origin: [" + strings.Repeat("/c{1,900}/,", 5310) + "]}))",
		"large classes": "app.use(cors({origin: [" + strings.Repeat(`/\pL/,`, 5000) + "]}))",
		"an escape":     `if ($http_origin ~ "c\{90\0}") { add_header Access-Control-Allow-Origin *; }`,
	} {
		mib, took := spent(func() {
			if _, err := audit(text, time.Now()); err == nil || !strings.Contains(err.Error(), "in the lab") {
				t.Errorf("%s: %v", name, err)
			}
		})
		if mib > 20 || took > patience {
			t.Errorf("%s: %d MiB and %v", name, mib, took)
		}
	}
	if a, err := audit(l.fillConfig(reader(l), head+"routes:\n"+manyRoutes(maxPieces)), time.Now()); err != nil || len(a.Faults) != 1 {
		t.Errorf("an audit of too many routes: %+v, %v", a, err)
	}
}

// TestWorstPatternsTakeLittle of what is not refused.
func TestWorstPatternsTakeLittle(t *testing.T) {
	l := openWith(t, nil)
	for name, pattern := range map[string]string{
		"long":        "^" + strings.Repeat("[^a]", 240) + "$",
		"wide":        "^[" + strings.Repeat("acegikmoqsuwy", 30) + "]{50}[^acegikmoqsuwyACEGIKMOQSUWY02468]{50}$",
		"folded":      "^(?i:[^k]{50}[^s]{50}" + strings.Repeat("[^ks]", 100) + ")$",
		"alternating": "^(" + strings.Repeat("a?|", 250) + "b{50}c{50})*$",
		"an ID":       "^[0-9a-f]{8}(-[0-9a-f]{4}-)[0-9a-f]{12}$",
		"points":      "^" + strings.Repeat(".", 700) + ".{50}.{50}$",
		"wide runes":  "^[" + wide(200) + "]{50}[" + wide(100) + "]{50}$",
	} {
		text := withUsers + "routes:\n"
		text += "  - {match: /x, upstream: bank, auth: u, policy: p}\n"
		for i := range maxPieces - 3 {
			text += fmt.Sprintf("  - {match: /r%d, upstream: bank, auth: u, policy: p}\n", i)
		}
		text += "policies:\n  p:\n    authorize:\n      if: \"''.matches('" + pattern + "')\"\n"
		var err error
		before := inUse()
		mib, took := spent(func() { _, err = l.configure(reader(l), text, true) })
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		kept := inUse() - before
		t.Logf("%s: %d MiB allocated, %d MiB kept, %v", name, mib, kept, took)
		if kept > 50 {
			t.Errorf("%s: %d MiB kept", name, kept)
		}
	}
}

// TestWorstSnippetsTakeLittle of what is not refused.
func TestWorstSnippetsTakeLittle(t *testing.T) {
	for name, patterns := range map[string]string{
		"many":     strings.Repeat("/^c$/,", 9000),
		"repeated": strings.Repeat("/^["+wide(200)+"]{50}$/,", 20),
	} {
		mib, took := spent(func() {
			if _, err := audit("app.use(cors({origin: ["+patterns+"]}))", time.Now()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
		t.Logf("%s: %d MiB allocated, %v", name, mib, took)
		if mib > 150 || took > patience { // in all, not at once
			t.Errorf("%s: %d MiB and %v", name, mib, took)
		}
	}
}

// TestOrdinaryPatternsStand, and all that the lessons and starters have.
func TestOrdinaryPatternsStand(t *testing.T) {
	l := open(t)
	for _, lesson := range l.o.Lessons {
		if lesson.Mend == nil {
			continue
		}
		if _, err := l.compile(reader(l), lesson.Mend.Solution); err != nil {
			t.Errorf("%s: %v", lesson.Name, err)
		}
	}
	text := withUsers + "routes:\n" + ifRoute(1, `"request.path.matches(r'^/accounts/[0-9a-f]{8}-[0-9a-f]{4}$')"`)
	if _, err := l.compile(reader(l), text); err != nil {
		t.Error(err)
	}
	if a, err := audit(l.fillConfig(reader(l), text), time.Now()); err != nil || strings.Contains(fmt.Sprint(a.Faults), "in the lab") { // of the JWK Set it says that it is none
		t.Errorf("%+v, %v", a, err)
	}
}

func wide(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteRune(rune(0x100 + 2*i))
	}
	return b.String()
}
