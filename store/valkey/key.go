package valkey

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/moat-gateway/moat/guard/ratelimit"
)

// keyName is the name of a key on the server: prefix:{tag}:limit:network:method:route, and
// :who where somebody is counted by name.
// What is in braces chooses the slot in a cluster: for all networks of one client it is
// the widest that a limit counts by, so that they are asked in one script. Who is counted by
// name alone has a slot of his own, or all users would be on one node.
//
// Different keys have different names: fields are separated by colons, and colons in
// them are escaped. A network of IPv6, which is full of them, stands in brackets.
func keyName(prefix string, k ratelimit.Key) string {
	b := make([]byte, 0, 128)
	b = append(b, prefix...)
	b = append(b, ":{"...)
	b = appendTag(b, k)
	b = append(b, "}:"...)
	b = appendEscaped(b, k.Limit)
	b = append(b, ':')
	if k.Net.IsValid() {
		b = append(b, '[')
		b = k.Net.AppendTo(b)
		b = append(b, ']')
	}
	b = append(b, ':')
	b = appendEscaped(b, k.Method)
	b = append(b, ':')
	b = appendEscaped(b, k.Route)
	if k.Who != "" {
		b = append(b, ':')
		b = appendEscaped(b, k.Who)
	}
	return string(b)
}

// The widest networks that a client is counted by.
const widest4, widest6 = 24, 48

func appendTag(b []byte, k ratelimit.Key) []byte {
	switch {
	case !k.Net.IsValid() && k.Who != "":
		return appendEscaped(b, k.Who)
	case !k.Net.IsValid():
		return appendEscaped(b, k.Limit)
	}
	bits := widest6
	if k.Net.Addr().Is4() {
		bits = widest4
	}
	return netip.PrefixFrom(k.Net.Addr(), min(k.Net.Bits(), bits)).Masked().AppendTo(b)
}

const hexDigits = "0123456789ABCDEF"

// appendEscaped writes a field in characters that no field is separated by, and that do
// not garble an operator's terminal.
func appendEscaped(b []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; {
		case c <= ' ' || c >= 0x7f || c == ':' || c == '%' || c == '{' || c == '}':
			b = append(b, '%', hexDigits[c>>4], hexDigits[c&15])
		default:
			b = append(b, c)
		}
	}
	return b
}

const slots = 1 << 14

// slotOf is the slot that a cluster keeps a key in: CRC-16 (XMODEM) of what is in the
// first braces, as the cluster specification says
// (https://valkey.io/topics/cluster-spec/#key-distribution-model).
func slotOf(name string) int {
	if _, rest, ok := strings.Cut(name, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			name = tag
		}
	}
	var crc uint16
	for i := range len(name) {
		crc = crc<<8 ^ crcTable[byte(crc>>8)^name[i]]
	}
	return int(crc % slots)
}

var crcTable = func() (table [256]uint16) {
	for i := range table {
		crc := uint16(i) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
		table[i] = crc
	}
	return table
}()

// probeName is a key whose slot is in a range, to try whether its node is there.
func probeName(prefix string, from, to int) string {
	for i := 0; ; i++ {
		name := prefix + ":{probe" + strconv.Itoa(i) + "}"
		if slot := slotOf(name); from <= slot && slot < to {
			return name
		}
	}
}
