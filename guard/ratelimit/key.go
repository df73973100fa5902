package ratelimit

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/moat-gateway/moat/web"
)

// Text is the key as an operator reads it, without the limit's name: "203.0.113.7",
// "everybody", "2001:db8::/64 GET /v1/", "principal=accounts|alice". ParseKey reads it.
func (k Key) Text() string {
	s := ""
	for _, part := range []string{netText(k.Net), k.Who, k.Method, k.Route} {
		if part != "" {
			if s != "" {
				s += " "
			}
			s += part
		}
	}
	if s == "" {
		return everybody
	}
	return s
}

// everybody is the key that all clients share, or all whose address is not known.
const everybody = "everybody"

func netText(p netip.Prefix) string {
	switch {
	case !p.IsValid():
		return ""
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}

// ParseKey reads what Text has written of one of the limit's keys. An address, Key.Who and
// "everybody" may stand alone where the limit counts by route or method too: the key then
// has neither, and stands for all of them.
//
// An address stands for the network that it is counted by first: see Wider. Of clients
// whose address is not known, a route that is named like an address is read as one. What
// Key.Who escapes may stand there as it is, but for what separates its parts.
func (r Rule) ParseKey(text string) (Key, error) {
	k := Key{Limit: r.Name}
	switch text {
	case everybody:
		return k, nil
	case "":
		return Key{}, errors.New("no key")
	}
	byRoute, byMethod, rest := slices.Contains(r.By, Route), slices.Contains(r.By, Method), text
	byAddress, who := slices.Contains(r.By, Address), r.parts(true)
	if byAddress || r.byIdentity() {
		word, tail, _ := strings.Cut(text, " ")
		net, isNet, err := parseNet(word)
		switch {
		case err != nil:
			return Key{}, err
		case isNet:
			k.Net, rest = net, tail
		case !byRoute && !byMethod && len(who) == 0:
			return Key{}, fmt.Errorf("%q: neither an address nor a network", word)
		}
	}
	if word, tail, _ := strings.Cut(rest, " "); len(who) > 0 && isPart(word) {
		who, err := r.parseWho(word)
		if err != nil {
			return Key{}, err
		}
		k.Who, rest = who, tail
	}
	switch {
	case rest == "" && (k.Net.IsValid() || k.Who != ""):
		return k, nil
	case len(who) > 0 && k.Who == "" && !byRoute && !byMethod:
		return Key{}, fmt.Errorf("%q: this limit counts by %s=…", rest, strings.Join(who, "=…,"))
	}
	if byMethod {
		k.Method, rest, _ = strings.Cut(rest, " ")
		if !isToken(k.Method) {
			return Key{}, fmt.Errorf("%q: not a method, which this limit counts by", k.Method)
		}
	}
	if byRoute {
		k.Route, rest = rest, ""
		if k.Route == "" {
			return Key{}, errors.New("lacks the route, which this limit counts by")
		}
	}
	if rest != "" {
		return Key{}, fmt.Errorf("%q: more than this limit counts by", rest)
	}
	return k, nil
}

// parseNet reads an address or a network that clients are counted by.
func parseNet(s string) (p netip.Prefix, isNet bool, err error) {
	if a, aErr := netip.ParseAddr(s); aErr == nil {
		return web.Narrowest(a), true, nil
	}
	p, pErr := netip.ParsePrefix(s)
	if pErr != nil {
		return netip.Prefix{}, false, nil
	}
	counted, words := []int{64, 56, 48}, "an IPv6 client is counted by its /64, /56 and /48"
	if p.Addr().Is4() {
		counted, words = []int{32, 24}, "an IPv4 client is counted by its address and its /24"
	}
	if !slices.Contains(counted, p.Bits()) {
		return netip.Prefix{}, true, fmt.Errorf("%q: %s", s, words)
	}
	return p.Masked(), true, nil
}

// isToken reports whether s can be a method: RFC 9110 section 5.6.2.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return c <= ' ' || c >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, c)
	})
}
