package egress

import (
	"net/netip"
	"slices"
)

// special4 are the IPv4 ranges of the IANA registry of special-purpose addresses that are not
// on the public Internet, with multicast and what is reserved
// (https://www.iana.org/assignments/iana-ipv4-special-registry).
var special4 = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
	"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
)

// IPv6 has one public range, and a few special ones in it
// (https://www.iana.org/assignments/iana-ipv6-special-registry). Outside of it are ::1, the
// mapped and translated forms of IPv4 (::ffff:0:0/96, 64:ff9b::/96, 64:ff9b:1::/48), 100::/64,
// 5f00::/16, fc00::/7, fe80::/10, fec0::/10 and ff00::/8.
var (
	global6  = netip.MustParsePrefix("2000::/3")
	special6 = prefixes("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)

func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, t := range texts {
		out[i] = netip.MustParsePrefix(t)
	}
	return out
}

// Public reports whether an address is a unicast one of the public Internet. No IPv6 form
// of an IPv4 address is.
func Public(a netip.Addr) bool {
	if a.Is4() {
		return !within(special4, a)
	}
	return global6.Contains(a) && !within(special6, a)
}

func within(ranges []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(a) })
}
