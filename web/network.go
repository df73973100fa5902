package web

import "net/netip"

// Network is the network around an address that has so many bits in IPv4 and in IPv6; the zero
// Prefix for no address.
func Network(a netip.Addr, v4, v6 int) netip.Prefix {
	bits := v6
	if a = a.Unmap().WithZone(""); a.Is4() {
		bits = v4
	}
	p, _ := a.Prefix(bits)
	return p
}

// Narrowest is the network that stands for a client: its address (IPv4), or its /64, of which one
// IPv6 client has all addresses.
func Narrowest(a netip.Addr) netip.Prefix { return Network(a, 32, 64) }
