package apikey_test

import (
	"maps"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity"
	"github.com/moat-gateway/moat/guard/identity/apikey"
)

var now = time.Date(2026, 3, 1, 12, 0, 30, 0, time.UTC)

func generate(t testing.TB, described apikey.Key) (string, apikey.Key) {
	t.Helper()
	text, k, err := apikey.Generate(described, now)
	if err != nil {
		t.Fatal(err)
	}
	return text, k
}

func verifier(keys ...apikey.Key) *apikey.Verifier {
	set := new(apikey.Set)
	set.Replace(keys)
	return apikey.New(apikey.Policy{Source: "partners", Keys: set})
}

// This is the expression that docs/guards/apikey.md gives to secret scanners.
var scanner = regexp.MustCompile(`\bmoat_[0-9A-Za-z]{8}_[0-9A-Za-z]{38}\b`)

func TestAKeyIsWhatScannersLookFor(t *testing.T) {
	seen := make(map[string]bool)
	for range 1000 {
		text, k := generate(t, apikey.Key{Owner: "acme"})
		if id, ok := apikey.ID(text); !ok || id != k.ID || !scanner.MatchString("KEY="+text+";") {
			t.Fatalf("%s: %q, %v", text, id, ok)
		}
		if seen[k.ID] || strings.Contains(text[14:], k.ID) {
			t.Fatalf("%s has been there", k.ID)
		}
		seen[k.ID] = true
	}
}

func TestDigitsAreEquallyLikely(t *testing.T) {
	count := make(map[rune]int)
	const n = 5000
	for range n {
		text, _ := generate(t, apikey.Key{Owner: "acme"})
		for _, c := range text[14:46] {
			count[c]++
		}
	}
	// 2,580 of each are expected, 50 more or less are usual: 8 times that is no chance.
	for c, got := range count {
		if want := n * 32 / 62; got < want-400 || got > want+400 {
			t.Errorf("%q: %d times, want about %d", c, got, want)
		}
	}
	if len(count) != 62 {
		t.Errorf("%d digits", len(count))
	}
}

func TestWhoseAKeyIs(t *testing.T) {
	text, k := generate(t, apikey.Key{Owner: "acme", Note: "CI", Scopes: []string{"write", "read", "read"}, Expires: now.Add(time.Hour)})
	p, d := verifier(k).Verify(t.Context(), text, now)
	if d.Reason != guard.IdentityVerified || d.Denied() {
		t.Fatal(d)
	}
	if p.ID() != "partners|acme" || p.Method() != identity.APIKey || p.Credential() != k.ID || p.Issuer() != "" || p.Confirmation() != "" || p.Ambient() {
		t.Errorf("%+v", p)
	}
	if !p.HasScope("read") || !p.HasScope("write") || len(p.Scopes()) != 2 || !p.Expires().Equal(k.Expires) {
		t.Errorf("%+v", p)
	}
	if want := map[string]any{"key_id": k.ID, "note": "CI"}; !maps.Equal(p.Claims(), want) {
		t.Errorf("%v, want %v", p.Claims(), want)
	}
}

func TestTheSameKeysInTwoPlacesAreTwoSources(t *testing.T) {
	text, k := generate(t, apikey.Key{Owner: "acme"})
	set := new(apikey.Set)
	set.Replace([]apikey.Key{k})
	a, b := apikey.New(apikey.Policy{Source: "a", Keys: set}), apikey.New(apikey.Policy{Source: "b", Keys: set})
	for range 2 {
		p, _ := a.Verify(t.Context(), text, now)
		q, _ := b.Verify(t.Context(), text, now)
		if p.ID() != "a|acme" || q.ID() != "b|acme" {
			t.Errorf("%s %s", p.ID(), q.ID())
		}
	}
}

func TestWhichKeysAreRefused(t *testing.T) {
	text, k := generate(t, apikey.Key{Owner: "acme", Expires: now.Add(time.Hour)})
	other, _ := generate(t, apikey.Key{Owner: "acme"})
	impostor := k // has the id of the key, and the hash of another text
	_, stranger := generate(t, apikey.Key{Owner: "mallory"})
	impostor.Hash = stranger.Hash
	revoked, replaced := k, k
	revoked.Revoked = now.Add(time.Hour) // by a clock that is ahead
	replaced.ReplacedBy, replaced.GraceUntil = "abcdefgh", now.Add(time.Minute)
	both := replaced
	both.Revoked = now

	tests := map[string]struct {
		text   string
		keys   []apikey.Key
		at     time.Time
		reason guard.Reason
	}{
		"good":                         {text, []apikey.Key{k}, now, guard.IdentityVerified},
		"to the last moment":           {text, []apikey.Key{k}, now.Add(time.Hour - 31*time.Second), guard.IdentityVerified},
		"expired":                      {text, []apikey.Key{k}, now.Add(time.Hour), guard.APIKeyExpired},
		"revoked, whatever the clock":  {text, []apikey.Key{revoked}, now, guard.APIKeyRevoked},
		"replaced, in its grace":       {text, []apikey.Key{replaced}, now, guard.IdentityVerified},
		"replaced, and that is over":   {text, []apikey.Key{replaced}, now.Add(time.Minute), guard.APIKeyRevoked},
		"replaced, and revoked":        {text, []apikey.Key{both}, now, guard.APIKeyRevoked},
		"no keys":                      {text, nil, now, guard.APIKeyUnknown},
		"another key":                  {other, []apikey.Key{k}, now, guard.APIKeyUnknown},
		"the id with another secret":   {text, []apikey.Key{impostor}, now, guard.APIKeyUnknown},
		"only who knows it is told so": {text, []apikey.Key{{ID: k.ID, Hash: stranger.Hash, Revoked: now}}, now, guard.APIKeyUnknown},
		"nothing":                      {"", []apikey.Key{k}, now, guard.APIKeyUnknown},
		"a token":                      {"eyJhbGciOiJIUzI1NiJ9.e30.c2ln", []apikey.Key{k}, now, guard.APIKeyUnknown},
		"cut short":                    {text[:51], []apikey.Key{k}, now, guard.APIKeyUnknown},
		"more":                         {text + "0", []apikey.Key{k}, now, guard.APIKeyUnknown},
		"blanks around":                {text + " ", []apikey.Key{k}, now, guard.APIKeyUnknown},
		"capitals":                     {strings.ToUpper(text), []apikey.Key{k}, now, guard.APIKeyUnknown},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p, d := verifier(test.keys...).Verify(t.Context(), test.text, test.at)
			if d.Reason != test.reason || d.Denied() == (p != nil) {
				t.Errorf("%s, %v; want %s", d.Reason, p, test.reason)
			}
			if len(test.text) > 14 && strings.Contains(d.Evidence.Got+d.Evidence.Want, test.text[14:][:8]) {
				t.Errorf("the evidence has a part of the secret: %+v", d.Evidence)
			}
		})
	}
}

func TestAVerifierWithoutKeysKnowsNobody(t *testing.T) {
	text, _ := generate(t, apikey.Key{Owner: "acme"})
	if p, d := apikey.New(apikey.Policy{}).Verify(t.Context(), text, now); p != nil || d.Reason != guard.APIKeyUnknown {
		t.Errorf("%v %s", p, d.Reason)
	}
}

func TestWhatLooksLikeAKey(t *testing.T) {
	text, _ := generate(t, apikey.Key{Owner: "acme"})
	v := verifier()
	for text, want := range map[string]bool{text: true, text[:20]: true, "moat_": true, "": false, "Moat_": false, "eyJhbGciOiJIUzI1NiJ9.e30.c2ln": false} {
		if got := v.Recognizes(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestNobodyMakesAKeyThatCannotBeJudged(t *testing.T) {
	for described, want := range map[*apikey.Key]string{
		{}:                                 "owner: missing",
		{Owner: "a\nb"}:                    "owner",
		{Owner: " a"}:                      "owner",
		{Owner: "a\xff"}:                   "owner",
		{Owner: strings.Repeat("a", 201)}:  "owner",
		{Owner: "a", Note: "\x1b[31m"}:     "note",
		{Owner: "a", Scopes: []string{""}}: "scope",
		{Owner: "a", Scopes: []string{"read write"}}:     "scope",
		{Owner: "a", Scopes: []string{`read"`}}:          "scope",
		{Owner: "a", Scopes: []string{"läsen"}}:          "scope",
		{Owner: "a", Scopes: make([]string, 65)}:         "scope: 65",
		{Owner: "a", Expires: now.Add(-time.Second)}:     "expires",
		{Owner: "a", Expires: now.Add(time.Millisecond)}: "expires",
	} {
		if text, _, err := apikey.Generate(*described, now); err == nil || !strings.Contains(err.Error(), want) || text != "" {
			t.Errorf("%+v: %v, want %q", described, err, want)
		}
	}
}

func TestUseIsNotedToTheMinute(t *testing.T) {
	text, k := generate(t, apikey.Key{Owner: "acme"})
	idle, unused := generate(t, apikey.Key{Owner: "other"})
	set := new(apikey.Set)
	v := apikey.New(apikey.Policy{Keys: set})
	used := func(since time.Time) map[string]time.Time { return maps.Collect(set.Used(since)) }
	want := func(since time.Time, want map[string]time.Time) {
		t.Helper()
		if got := used(since); !maps.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	want(time.Time{}, map[string]time.Time{})
	set.Replace([]apikey.Key{k, unused})
	want(time.Time{}, map[string]time.Time{})
	v.Verify(t.Context(), idle[:14]+text[14:], now) // of the other, with a wrong secret
	v.Verify(t.Context(), text, now)
	v.Verify(t.Context(), text, now.Add(-time.Hour)) // a clock that was set back
	want(now, map[string]time.Time{k.ID: now.Truncate(time.Minute)})
	want(now.Add(time.Minute), map[string]time.Time{})

	set.Replace([]apikey.Key{k})
	want(now, map[string]time.Time{k.ID: now.Truncate(time.Minute)})
	v.Verify(t.Context(), text, now.Add(90*time.Second))
	want(now.Add(time.Minute), map[string]time.Time{k.ID: now.Truncate(time.Minute).Add(2 * time.Minute)})
	set.Replace(nil)
	want(time.Time{}, map[string]time.Time{})
}

func TestAChangeOfTheSetHoldsFromTheNextRequest(t *testing.T) {
	text, k := generate(t, apikey.Key{Owner: "acme", Scopes: []string{"a"}})
	set := new(apikey.Set)
	v := apikey.New(apikey.Policy{Keys: set})
	set.Replace([]apikey.Key{k})
	if p, _ := v.Verify(t.Context(), text, now); p == nil || !p.HasScope("a") {
		t.Fatal(p)
	}
	k.Scopes = []string{"b"}
	set.Replace([]apikey.Key{k})
	if p, _ := v.Verify(t.Context(), text, now); p == nil || p.HasScope("a") {
		t.Error(p)
	}
	k.Revoked = now
	set.Replace([]apikey.Key{k})
	if p, d := v.Verify(t.Context(), text, now); p != nil || d.Reason != guard.APIKeyRevoked {
		t.Error(d.Reason)
	}
}

// This is one for the race detector: keys are exchanged while requests are judged.
func TestKeysAreExchangedUnderLoad(t *testing.T) {
	text, k := generate(t, apikey.Key{Owner: "acme"})
	set := new(apikey.Set)
	set.Replace([]apikey.Key{k})
	v := apikey.New(apikey.Policy{Keys: set})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 500 {
				if p, d := v.Verify(t.Context(), text, now.Add(time.Duration(i)*time.Minute)); p == nil {
					t.Error(d.Reason)
				}
			}
		})
	}
	for range 200 {
		set.Replace([]apikey.Key{k})
	}
	wg.Wait()
	if got := maps.Collect(set.Used(now.Add(499 * time.Minute))); len(got) != 1 {
		t.Errorf("%v", got)
	}
}

func TestAGoodKeyCostsNoMemory(t *testing.T) {
	text, k := generate(t, apikey.Key{Owner: "acme"})
	v := verifier(k)
	if n := testing.AllocsPerRun(100, func() {
		if p, _ := v.Verify(t.Context(), text, now); p == nil {
			t.Error("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzAKeyIsReadExactly wants that no text is taken for a key but one whose check digits
// fit, and that a change of any one character is noticed.
func FuzzAKeyIsReadExactly(f *testing.F) {
	text, _ := generate(f, apikey.Key{Owner: "acme"})
	f.Add(text, uint8(20), byte('a'))
	f.Add(text, uint8(13), byte('_'))
	f.Add("moat_00000000_00000000000000000000000000000000000000", uint8(0), byte(' '))
	f.Add("", uint8(0), byte(0))
	f.Fuzz(func(t *testing.T, s string, at uint8, c byte) {
		if id, ok := apikey.ID(s); ok && (!scanner.MatchString(s) || len(s) != 52 || id != s[5:13]) {
			t.Errorf("%q is no key", s)
		}
		text, k := generate(t, apikey.Key{Owner: "acme"})
		if id, ok := apikey.ID(text); !ok || id != k.ID {
			t.Errorf("%q: %q", text, id)
		}
		b := []byte(text)
		i := int(at) % len(b)
		if b[i] == c {
			return
		}
		b[i] = c
		if _, ok := apikey.ID(string(b)); ok {
			t.Errorf("%q and %q are both keys", text, b)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	text, k := generate(b, apikey.Key{Owner: "acme", Scopes: []string{"read"}})
	stranger, _ := generate(b, apikey.Key{Owner: "mallory"})
	keys := []apikey.Key{k}
	for range 10_000 {
		_, k := generate(b, apikey.Key{Owner: "acme"})
		keys = append(keys, k)
	}
	v := verifier(keys...)
	for name, text := range map[string]string{"good": text, "unknown": stranger, "typo": text[:51] + "!"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				v.Verify(b.Context(), text, now)
			}
		})
	}
}
