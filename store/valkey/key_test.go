package valkey

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/guard/ratelimit"
)

func TestSlotsAreThoseOfTheSpecification(t *testing.T) {
	// "123456789" is the check value of CRC-16/XMODEM; the others are what CLUSTER
	// KEYSLOT answers.
	for name, want := range map[string]int{
		"123456789": 0x31C3, "foo": 12182, "{foo}bar": 12182, "a{foo}b{bar}": 12182,
		"{}foo": 9500, "": 0,
	} {
		if got := slotOf(name); got != want {
			t.Errorf("slot of %q is %d, want %d", name, got, want)
		}
	}
}

func TestKeysOfOneClientLieInOneSlot(t *testing.T) {
	net := netip.MustParsePrefix
	for _, client := range [][]string{
		{"203.0.113.7/32", "203.0.113.0/24", "203.0.113.64/26"},
		{"2001:db8:1:2::/64", "2001:db8:1::/48", "2001:db8:1::/56", "2001:db8:1:2:3:4:5:6/128"},
	} {
		want := slotOf(keyName("moat", ratelimit.Key{Limit: "a", Net: net(client[0])}))
		for _, n := range client {
			k := ratelimit.Key{Limit: "another", Net: net(n), Route: "/v1/", Method: "GET"}
			if got := slotOf(keyName("moat", k)); got != want {
				t.Errorf("%s lies in slot %d, want %d as %s", n, got, want, client[0])
			}
		}
	}
}

func TestKeyNamesAreReadable(t *testing.T) {
	net := netip.MustParsePrefix
	for want, k := range map[string]ratelimit.Key{
		"moat:{203.0.113.0/24}:login:[203.0.113.7/32]:POST:/v1/login": {Limit: "login", Net: net("203.0.113.7/32"), Method: "POST", Route: "/v1/login"},
		"moat:{2001:db8:1::/48}:all:[2001:db8:1:2::/64]::":            {Limit: "all", Net: net("2001:db8:1:2::/64")},
		"moat:{all}:all:::": {Limit: "all"},
		"moat:{principal=accounts|alice}:user::::principal=accounts|alice":                  {Limit: "user", Who: "principal=accounts|alice"},
		"moat:{203.0.113.0/24}:login:[203.0.113.7/32]:POST:/login:account=a%3Ab%2540c.test": {Limit: "login", Net: net("203.0.113.7/32"), Method: "POST", Route: "/login", Who: "account=a:b%40c.test"},
		"moat:{}::::":                           {},
		"moat:{a%7Db}:a%7Db:::/orders/%7Bid%7D": {Limit: "a}b", Route: "/orders/{id}"},
	} {
		if got := keyName("moat", k); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// No two keys have one name, or one client could use up another's limit.
func FuzzKeyNamesTellKeysApart(f *testing.F) {
	f.Add("a", "203.0.113.7/32", "", "GET", "/", "a:", "203.0.113.0/24", "", "", "GET:/")
	f.Add("{a", "::/0", "", "", "}", "{a}", "", "", "", "")
	f.Add("a", "", "b", "", "", "a", "", "", "", ":b")
	f.Fuzz(func(t *testing.T, limit1, net1, who1, method1, route1, limit2, net2, who2, method2, route2 string) {
		n1, _ := netip.ParsePrefix(net1) // or the zero Prefix
		n2, _ := netip.ParsePrefix(net2) // or the zero Prefix
		k1 := ratelimit.Key{Limit: limit1, Net: n1, Who: who1, Method: method1, Route: route1}
		k2 := ratelimit.Key{Limit: limit2, Net: n2, Who: who2, Method: method2, Route: route2}
		name1, name2 := keyName("moat", k1), keyName("moat", k2)
		if (name1 == name2) != (k1 == k2) {
			t.Errorf("%+v is %s, %+v is %s", k1, name1, k2, name2)
		}
		if strings.ContainsFunc(name1, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			t.Errorf("%q", name1)
		}
	})
}
