package ratelimit_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/guard/ratelimit"
)

// facts that a limit may count by.
var everyBy = [][]ratelimit.Fact{
	nil,
	{ratelimit.Address},
	{ratelimit.Route},
	{ratelimit.Method},
	{ratelimit.NewAddress, ratelimit.Route},
	{ratelimit.Route, ratelimit.Method},
	{ratelimit.Address, ratelimit.Method},
	{ratelimit.Address, ratelimit.Route},
	{ratelimit.Address, ratelimit.Route, ratelimit.Method},
	{ratelimit.Account},
	{ratelimit.Principal},
	{ratelimit.Principal, ratelimit.Route, ratelimit.Method},
	{ratelimit.Address, ratelimit.Credential, ratelimit.Account},
}

func has(by []ratelimit.Fact, f ratelimit.Fact) bool {
	return slices.Contains(by, f)
}

func TestParseKeyReadsWhatTextHasWritten(t *testing.T) {
	routes := []string{"/", "/v1/", "GET /v1/", "api.example.com/", "GET api.example.com/x/{id}", "items", "a b", "203"}
	methods := []string{"GET", "POST", "M-SEARCH", "get"}
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		by := everyBy[r.IntN(len(everyBy))]
		k := ratelimit.Key{Limit: "l"}
		if has(by, ratelimit.Address) && r.IntN(5) > 0 {
			var b [16]byte
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			k.Net, _ = netip.AddrFrom16(b).Prefix([]int{48, 56, 64}[r.IntN(3)])
			if r.IntN(2) == 0 {
				k.Net, _ = netip.AddrFrom4([4]byte(b[:4])).Prefix([]int{24, 32}[r.IntN(2)])
			}
		}
		if has(by, ratelimit.Route) {
			k.Route = routes[r.IntN(len(routes))]
		}
		if has(by, ratelimit.Method) {
			k.Method = methods[r.IntN(len(methods))]
		}
		got, err := ratelimit.Rule{Name: "l", By: by}.ParseKey(k.Text())
		if err != nil || got != k {
			t.Fatalf("by %v: %q is %+v, %v; want %+v", by, k.Text(), got, err, k)
		}
	}
}

func TestParseKey(t *testing.T) {
	net := netip.MustParsePrefix
	for _, c := range []struct {
		by   int // of everyBy
		text string
		want ratelimit.Key
	}{
		{0, "everybody", ratelimit.Key{}},
		{1, "203.0.113.7", ratelimit.Key{Net: net("203.0.113.7/32")}},
		{1, "::ffff:203.0.113.7", ratelimit.Key{Net: net("203.0.113.7/32")}},
		{1, "203.0.113.7/24", ratelimit.Key{Net: net("203.0.113.0/24")}},
		{1, "2001:db8:0:1::7", ratelimit.Key{Net: net("2001:db8:0:1::/64")}},
		{1, "fe80::1%eth0", ratelimit.Key{Net: net("fe80::/64")}},
		{1, "2001:db8::/48", ratelimit.Key{Net: net("2001:db8::/48")}},
		{1, "everybody", ratelimit.Key{}}, // whose address is not known
		{8, "203.0.113.7", ratelimit.Key{Net: net("203.0.113.7/32")}},
		{9, "account=Bob@C.test", ratelimit.Key{Who: "account=bob@c.test"}},
		{9, "account=a%20b", ratelimit.Key{Who: "account=a%20b"}},
		{9, "account=a%zz", ratelimit.Key{Who: "account=a%25zz"}},
		{9, "account=" + strings.Repeat("A", 200), ratelimit.Key{Who: "account=~c2a908d98f5df987ade41b5fce213067"}},
		{10, "principal=accounts|Alice", ratelimit.Key{Who: "principal=accounts|Alice"}},
		{10, "203.0.113.7", ratelimit.Key{Net: net("203.0.113.7/32")}},
		{11, "principal=accounts|alice", ratelimit.Key{Who: "principal=accounts|alice"}},
		{11, "principal=accounts|alice GET /v1/", ratelimit.Key{Who: "principal=accounts|alice", Method: "GET", Route: "/v1/"}},
		{12, "203.0.113.7 api_key=keys|k1,account=bob", ratelimit.Key{Net: net("203.0.113.7/32"), Who: "api_key=keys|k1,account=bob"}},
		{12, "203.0.113.7 principal=a|b,account=bob", ratelimit.Key{Net: net("203.0.113.7/32"), Who: "principal=a|b,account=bob"}},
		{12, "203.0.113.7 account=bob", ratelimit.Key{Net: net("203.0.113.7/32"), Who: "account=bob"}},
		{8, "203.0.113.7 GET GET /v1/", ratelimit.Key{Net: net("203.0.113.7/32"), Method: "GET", Route: "GET /v1/"}},
	} {
		c.want.Limit = "l"
		got, err := ratelimit.Rule{Name: "l", By: everyBy[c.by]}.ParseKey(c.text)
		if err != nil || got != c.want {
			t.Errorf("by %v: %q is %+v, %v; want %+v", everyBy[c.by], c.text, got, err, c.want)
		}
	}
}

func TestParseKeySaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		by        int // of everyBy
		text, err string
	}{
		{0, "203.0.113.7", `"203.0.113.7": more than this limit counts by`},
		{0, "", "no key"},
		{1, "", "no key"},
		{1, "203.0.113", `"203.0.113": neither an address nor a network`},
		{1, "203.0.113.7/16", `"203.0.113.7/16": an IPv4 client is counted by its address and its /24`},
		{1, "2001:db8::/32", `"2001:db8::/32": an IPv6 client is counted by its /64, /56 and /48`},
		{1, "203.0.113.7 GET", `"GET": more than this limit counts by`},
		{3, "/v1/", `"/v1/": not a method, which this limit counts by`},
		{9, "bob", `"bob": this limit counts by account=…`},
		{9, "203.0.113.7", `"203.0.113.7": this limit counts by account=…`},
		{9, "account=bob GET", `"GET": more than this limit counts by`},
		{9, "account=bob,account=eve", `"account=bob,account=eve": this limit counts by account=…`},
		{10, "account=bob", `"account=bob": this limit counts by principal=…`},
		{11, "principal=a|b GET", "lacks the route, which this limit counts by"},
		{12, "203.0.113.7 api_key=k", `"api_key=k": this limit counts by api_key=…,account=…`},
		{8, "203.0.113.7 GET", "lacks the route, which this limit counts by"},
		{8, "203.0.113.7 /v1/", `"/v1/": not a method, which this limit counts by`},
	} {
		_, err := ratelimit.Rule{Name: "l", By: everyBy[c.by]}.ParseKey(c.text)
		if err == nil || err.Error() != c.err {
			t.Errorf("by %v: %q: %v, want %s", everyBy[c.by], c.text, err, c.err)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	for i, s := range []string{"everybody", "203.0.113.7", "2001:db8::/64 GET /v1/", "GET GET /", "x\x00 y", "0.0.0.0/32 everybody", "account=b%zz", "principal=,account=~", "0.0.0.0/32 api_key=%41,account=A"} {
		f.Add(i, s)
	}
	f.Fuzz(func(t *testing.T, i int, text string) {
		r := ratelimit.Rule{Name: "l", By: everyBy[uint(i)%uint(len(everyBy))]}
		k, err := r.ParseKey(text)
		if err != nil {
			return
		}
		if again, err := r.ParseKey(k.Text()); err != nil || again != k {
			t.Errorf("%q is %+v, %q is %+v, %v", text, k, k.Text(), again, err)
		}
		if strings.HasPrefix(text, " ") && has(r.By, ratelimit.Address) && k.Net.IsValid() {
			t.Errorf("%q has an address", text)
		}
	})
}
