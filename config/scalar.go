package config

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/budget"
	"github.com/moat-gateway/moat/guard/ratelimit"
)

// size is a number of bytes, or unlimited.
type size int64

const unlimited size = -1

// factor is a whole number from 1, or off.
type factor int

const factorOff factor = -1

// address is host:port, or "off".
type address string

// off is the address of an admin listener that is not there.
const off address = "off"

var (
	durationType = reflect.TypeFor[time.Duration]()
	sizeType     = reflect.TypeFor[size]()
	secretType   = reflect.TypeFor[Secret]()
)

// scalar says how a type is written.
type scalar struct {
	want string   // in words
	tags []string // of the YAML scalars that can stand for it
	// parse reads a value, or says why it is none.
	parse func(text string, f field) (v any, reason string)
}

// The YAML types that a text, or a text that begins with a number, may resolve to.
var (
	text   = []string{"!!str", "!!timestamp"}
	number = []string{"!!str", "!!int"}
)

// scalars are the types that are written as one scalar.
var scalars = map[reflect.Type]scalar{
	reflect.TypeFor[bool]():            {"true or false", []string{"!!bool"}, parseBool},
	reflect.TypeFor[int]():             {"a whole number, in digits alone", []string{"!!int"}, parseInt},
	reflect.TypeFor[string]():          {"a text", text, parseString},
	reflect.TypeFor[guard.Mode]():      {"a mode", text, parseMode},
	reflect.TypeFor[address]():         {"an address such as 127.0.0.1:8080", number, parseAddress},
	reflect.TypeFor[netip.Addr]():      {"an IP address", text, parseAddr},
	reflect.TypeFor[netip.Prefix]():    {"an address range such as 10.0.0.0/8", text, parsePrefix},
	durationType:                       {"a duration such as 30s", number, parseDuration},
	sizeType:                           {"a size such as 10MiB", number, parseSize},
	reflect.TypeFor[ratelimit.Limit](): {"a limit such as 60/m burst 20", text, parseLimit},
	reflect.TypeFor[budget.Money]():    {"an amount of money such as 0.05", []string{"!!float", "!!int", "!!str"}, parseMoney},
	reflect.TypeFor[factor]():          {"a whole number", number, parseFactor},
	reflect.TypeFor[price]():           {"a price such as 0.25", []string{"!!str", "!!int", "!!float"}, parsePrice},
	thresholdType:                      {"a number such as 100, or a share such as 20%", number, parseThreshold},
	secretType:                         {"a reference to a secret", text, parseSecret},
}

func parseBool(s string, _ field) (any, string) {
	switch s {
	case "true", "True", "TRUE":
		return true, ""
	case "false", "False", "FALSE":
		return false, ""
	}
	return nil, "write true or false"
}

func parseInt(s string, f field) (any, string) {
	n, err := strconv.Atoi(s)
	if err != nil {
		return nil, "not a whole number"
	}
	if reason := f.checkBounds(int64(n)); reason != "" {
		return nil, reason
	}
	return n, checkEnum(s, f)
}

func parseLimit(s string, _ field) (any, string) {
	l, err := ratelimit.ParseLimit(s)
	if err != nil {
		return nil, err.Error()
	}
	return l, ""
}

func parseFactor(s string, f field) (any, string) {
	if s == f.or {
		return factorOff, ""
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 1<<16 {
		return nil, "write a whole number from 1 to 65536, or " + f.or
	}
	return factor(n), ""
}

func parseString(s string, f field) (any, string) { return s, checkEnum(s, f) }

func parseSecret(s string, _ field) (any, string) { return Secret{text: s}, "" }

func parseMode(s string, f field) (any, string) {
	var m guard.Mode
	if m.UnmarshalText([]byte(s)) != nil {
		return nil, checkEnum(s, f)
	}
	return m, ""
}

// isWord reports whether s is the word. One that ends in NAME stands for all that begin so.
func isWord(s, word string) bool {
	prefix, open := strings.CutSuffix(word, "NAME")
	return s == word || open && len(s) > len(prefix) && strings.HasPrefix(s, prefix)
}

func checkEnum(s string, f field) string {
	if len(f.enum) == 0 || slices.ContainsFunc(f.enum, func(word string) bool { return isWord(s, word) }) {
		return ""
	}
	if len(f.enum) == 1 {
		return "this version of moat knows only " + oneOf(f.enum)
	}
	return "write " + oneOf(f.enum) + DidYouMean(s, slices.Values(f.enum))
}

func parseAddress(s string, f field) (any, string) {
	if s == f.or && s != "" {
		return address(s), ""
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		reason := "not an address; write host:port"
		if a, aErr := netip.ParseAddr(strings.Trim(s, "[]")); aErr == nil {
			reason = fmt.Sprintf("no port; write %q", net.JoinHostPort(a.String(), "8080"))
		} else if _, pErr := strconv.ParseUint(s, 10, 16); pErr == nil {
			reason = fmt.Sprintf("no host; write %q", "127.0.0.1:"+s)
		}
		return nil, reason
	}
	if n, pErr := strconv.ParseUint(port, 10, 16); pErr != nil || strconv.FormatUint(n, 10) != port {
		return nil, "the port is not a number from 0 to 65535"
	}
	if strings.Contains(host, ":") {
		if a, aErr := netip.ParseAddr(host); aErr != nil || a.Is4() {
			return nil, "the host is not an IPv6 address"
		}
	} else if host != "" && !hostname.MatchString(host) {
		return nil, "the host is neither a name nor an address"
	}
	return address(s), ""
}

var hostname = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?$`)

func parseAddr(s string, _ field) (any, string) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return nil, "not an IP address"
	}
	return a, ""
}

func parsePrefix(s string, _ field) (any, string) {
	p, err := netip.ParsePrefix(s)
	if err == nil && p.Masked() == p {
		return p, ""
	}
	if err == nil {
		return nil, fmt.Sprintf("has bits beyond its length; write %q for the range, or %q for the one address", p.Masked(), netip.PrefixFrom(p.Addr(), p.Addr().BitLen()))
	}
	if a, aErr := netip.ParseAddr(s); aErr == nil && a.Zone() == "" {
		return nil, fmt.Sprintf("an address and no range; write %q", netip.PrefixFrom(a, a.BitLen()))
	}
	return nil, "not an address range such as 10.0.0.0/8"
}

// durationPattern is narrower than time.ParseDuration: nobody means nanoseconds here.
var durationPattern = regexp.MustCompile(`^-?([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`)

func parseDuration(s string, f field) (any, string) {
	d, err := time.ParseDuration(s)
	if !durationPattern.MatchString(s) || err != nil {
		if _, nErr := strconv.ParseUint(s, 10, 32); nErr == nil {
			return nil, fmt.Sprintf("no unit; write %q", s+"s")
		}
		return nil, "not a duration; write a number and its unit, ms, s, m or h"
	}
	return d, f.checkBounds(int64(d))
}

var sizePattern = regexp.MustCompile(`^([0-9]+)(B|KB|MB|GB|KiB|MiB|GiB)?$`)

var units = map[string]int64{"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

func parseSize(s string, f field) (any, string) {
	if s == f.or && s != "" {
		return unlimited, ""
	}
	m := sizePattern.FindStringSubmatch(s)
	if m == nil {
		return nil, "not a size; write a number of bytes, with KB, MB, GB, KiB, MiB or GiB" + nearSize(s, f)
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	unit := units[m[2]]
	if err != nil || n > math.MaxInt64/unit {
		return nil, "larger than any size can be"
	}
	return size(n * unit), f.checkBounds(n * unit)
}

var looseSize = regexp.MustCompile(`^([0-9]+) ?([kmgKMG])(i?)([bB]?)$`)

// nearSize suggests how a size was probably meant.
func nearSize(s string, f field) string {
	if m := looseSize.FindStringSubmatch(s); m != nil {
		binary := m[3]
		if m[4] == "" {
			binary = "i" // nobody says what 10M is, but most mean 2^20
		}
		return fmt.Sprintf("; did you mean %q?", m[1]+strings.ToUpper(m[2])+binary+"B")
	}
	return DidYouMean(s, slices.Values([]string{f.or}))
}

func (f field) checkBounds(n int64) string {
	if f.bounds == "" || f.least <= n && n <= f.greatest {
		return ""
	}
	return "must be " + f.bounds
}
