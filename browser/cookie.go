package browser

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moat-gateway/moat/web"
	"golang.org/x/net/publicsuffix"
)

// Cookie is a cookie as the browser keeps it (RFC 6265bis section 5.7).
type Cookie struct {
	Name, Value  string
	Domain, Path string
	HostOnly     bool
	Secure       bool
	HTTPOnly     bool
	SameSite     SameSite
	// Partition is the site of the tab for which a partitioned cookie was set; else "".
	Partition string
	// Created is when it was first set; Expires is zero for a cookie of the session.
	Created, Expires time.Time
	serial           int
}

// SameSite is the attribute of that name.
type SameSite string

// Its values; SameSiteUnset is a cookie that has none.
const (
	SameSiteUnset  SameSite = ""
	SameSiteNone   SameSite = "None"
	SameSiteLax    SameSite = "Lax"
	SameSiteStrict SameSite = "Strict"
)

// Jar is a browser's cookies. The zero Jar is empty.
type Jar struct {
	cookies []Cookie
	serial  int
}

// cookieContext is what a request's surroundings say about cookies.
type cookieContext struct {
	// sameSite is how near page and target are.
	sameSite siteContext
	// thirdParty is set if the tab is of another site than the target.
	thirdParty bool
	// partition is the tab's site, as partitioned cookies are keyed.
	partition string
	// blockThirdParty leaves only partitioned cookies to third parties.
	blockThirdParty bool
	// partitionAll keeps all cookies of third parties apart, per tab's site.
	partitionAll bool
}

// siteContext orders the contexts in which a cookie may travel, from none to all
// (RFC 6265bis section 5.2).
type siteContext int

const (
	crossSite siteContext = iota
	laxUnsafe             // top-level navigation from another site, with an unsafe method
	lax                   // top-level navigation from another site
	strict                // same site
)

// maxCookie bounds name and value together, and each attribute (RFC 6265bis section 5.6).
const (
	maxCookie    = 4096
	maxAttribute = 1024
)

// Set keeps a cookie, as RFC 6265bis section 5.7 says, or tells why it does not.
func (j *Jar) set(p *Profile, u location, line string, c cookieContext, now time.Time) (string, error) {
	k, err := parseCookie(line, now)
	if err != nil {
		return "", err
	}
	host := strings.Trim(u.origin.Host(), "[]")
	secure := u.origin.Scheme() == "https" || u.origin.Loopback()
	if err := k.place(host, u.url.Path); err != nil {
		return k.Name, err
	}
	if err := k.permitted(p, secure, c); err != nil {
		return k.Name, err
	}
	if c.thirdParty && c.partitionAll {
		k.Partition = c.partition
	}
	same := func(o Cookie) bool {
		return o.Name == k.Name && o.Domain == k.Domain && o.HostOnly == k.HostOnly && o.Path == k.Path && o.Partition == k.Partition
	}
	if !secure && slices.ContainsFunc(j.cookies, func(o Cookie) bool {
		return o.Secure && o.Name == k.Name && (domainMatch(o.Domain, k.Domain) || domainMatch(k.Domain, o.Domain)) && pathMatch(k.Path, o.Path)
	}) {
		return k.Name, errors.New("a Secure cookie of that name stays as it is")
	}
	k.Created = now
	j.serial++
	k.serial = j.serial
	if i := slices.IndexFunc(j.cookies, same); i >= 0 {
		k.Created, k.serial = j.cookies[i].Created, j.cookies[i].serial
		j.cookies = slices.Delete(j.cookies, i, i+1)
	}
	if k.Expires.IsZero() || k.Expires.After(now) {
		j.cookies = append(j.cookies, k)
	}
	return k.Name, nil
}

// permitted holds a cookie against where it comes from.
func (k *Cookie) permitted(p *Profile, secure bool, c cookieContext) error {
	switch {
	case k.Secure && !secure:
		return errors.New("it is Secure, but the answer came over http")
	case k.SameSite == SameSiteNone && !k.Secure:
		return errors.New("its SameSite=None needs Secure")
	case hasPrefixFold(k.Name, "__Secure-") && !k.Secure:
		return errors.New("the prefix __Secure- needs Secure")
	case hasPrefixFold(k.Name, "__Host-") && (!k.Secure || !k.HostOnly || k.Path != "/"):
		return errors.New("the prefix __Host- needs Secure, Path=/ and no Domain")
	case k.Partition != "" && !k.Secure:
		return errors.New("the attribute Partitioned needs Secure")
	case c.sameSite == crossSite && (k.SameSite == SameSiteStrict || k.SameSite == SameSiteLax || k.SameSite == SameSiteUnset && p.LaxByDefault):
		return errors.New("its SameSite keeps it from being set for a page of another site")
	case c.thirdParty && c.blockThirdParty && k.Partition == "":
		return errors.New("third-party cookies are blocked")
	}
	if k.Partition != "" {
		k.Partition = c.partition
	}
	return nil
}

// place settles domain and path.
func (k *Cookie) place(host, path string) error {
	_, noName := netip.ParseAddr(host)
	isAddress := noName == nil
	suffix, _ := publicsuffix.PublicSuffix(k.Domain)
	switch {
	case k.Domain == "" || k.Domain == host && (isAddress || suffix == host):
		k.Domain, k.HostOnly = host, true
	case suffix == k.Domain:
		return errors.New("its Domain is a public suffix")
	case isAddress || !domainMatch(host, k.Domain):
		return errors.New("its Domain does not cover the host")
	}
	if !strings.HasPrefix(k.Path, "/") {
		k.Path = defaultPath(path)
	}
	return nil
}

func defaultPath(p string) string {
	if i := strings.LastIndexByte(p, '/'); i > 0 {
		return p[:i]
	}
	return "/"
}

func domainMatch(host, domain string) bool {
	return host == domain || strings.HasSuffix(host, "."+domain)
}

func pathMatch(request, cookie string) bool {
	rest, ok := strings.CutPrefix(request, cookie)
	return ok && (rest == "" || strings.HasSuffix(cookie, "/") || rest[0] == '/')
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// parseCookie is RFC 6265bis section 5.6. A Partition of "?" stands for one that is not
// known yet.
func parseCookie(line string, now time.Time) (Cookie, error) {
	if contains(line, func(c byte) bool { return c < 0x20 && c != '\t' || c == 0x7f }) {
		return Cookie{}, errors.New("it holds a control character")
	}
	pair, attributes, _ := strings.Cut(line, ";")
	name, value, ok := strings.Cut(pair, "=")
	if !ok {
		name, value = "", pair
	}
	k := Cookie{Name: strings.Trim(name, " \t"), Value: strings.Trim(value, " \t")}
	if k.Name+k.Value == "" {
		return k, errors.New("it has neither name nor value")
	}
	if len(k.Name)+len(k.Value) > maxCookie {
		return k, errors.New("name and value are longer than 4096 bytes")
	}
	if k.Name == "" && (hasPrefixFold(k.Value, "__Secure-") || hasPrefixFold(k.Value, "__Host-")) {
		return k, errors.New("a cookie without a name poses as one with a prefix")
	}
	maxAge := false
	for a := range strings.SplitSeq(attributes, ";") {
		name, value, _ := strings.Cut(a, "=")
		value = strings.Trim(value, " \t")
		if len(value) > maxAttribute {
			continue
		}
		switch strings.ToLower(strings.Trim(name, " \t")) {
		case "domain":
			k.Domain = strings.ToLower(strings.TrimPrefix(value, "."))
		case "path":
			k.Path = value
		case "secure":
			k.Secure = true
		case "httponly":
			k.HTTPOnly = true
		case "partitioned":
			k.Partition = "?"
		case "samesite":
			k.SameSite = SameSiteUnset
			for _, s := range []SameSite{SameSiteNone, SameSiteLax, SameSiteStrict} {
				if strings.EqualFold(value, string(s)) {
					k.SameSite = s
				}
			}
		case "max-age":
			if n, err := strconv.Atoi(value); err == nil {
				k.Expires, maxAge = now.Add(time.Duration(n)*time.Second), true
				if n <= 0 {
					k.Expires = time.Unix(1, 0)
				}
			}
		case "expires":
			if at, ok := cookieDate(value); ok && !maxAge {
				k.Expires = at
			}
		}
	}
	return k, nil
}

// cookieDate reads the dates that servers write. RFC 6265bis section 5.1.1 would also
// take what nobody writes.
func cookieDate(v string) (time.Time, bool) {
	for _, form := range []string{
		"Mon, 02 Jan 2006 15:04:05 MST", "Monday, 02-Jan-06 15:04:05 MST",
		time.ANSIC, "Mon, 02-Jan-2006 15:04:05 MST",
	} {
		if at, err := time.Parse(form, v); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}

// withheld is a cookie that stayed in the jar though its name and place fit, and why.
type withheld struct{ name, why string }

// header builds the Cookie header field for a request (RFC 6265bis section 5.8.3).
func (j *Jar) header(p *Profile, u location, c cookieContext, now time.Time) (value string, kept []withheld) {
	host := strings.Trim(u.origin.Host(), "[]")
	secure := u.origin.Scheme() == "https" || u.origin.Loopback()
	var send []Cookie
	for _, k := range j.cookies {
		if k.HostOnly && k.Domain != host || !k.HostOnly && !domainMatch(host, k.Domain) || !pathMatch(u.url.Path, k.Path) ||
			!k.Expires.IsZero() && !k.Expires.After(now) {
			continue
		}
		if why := k.withheld(p, c, secure, now); why != "" {
			kept = append(kept, withheld{k.Name, why})
			continue
		}
		send = append(send, k)
	}
	slices.SortStableFunc(send, func(a, b Cookie) int {
		if len(a.Path) != len(b.Path) {
			return len(b.Path) - len(a.Path)
		}
		if d := a.Created.Compare(b.Created); d != 0 {
			return d
		}
		return a.serial - b.serial
	})
	var pairs []string
	for _, k := range send {
		if k.Name == "" {
			pairs = append(pairs, k.Value)
		} else {
			pairs = append(pairs, k.Name+"="+k.Value)
		}
	}
	return strings.Join(pairs, "; "), kept
}

// withheld says why the cookie does not travel; "" if it does.
func (k *Cookie) withheld(p *Profile, c cookieContext, secure bool, now time.Time) string {
	same := k.SameSite
	if same == SameSiteUnset {
		same = SameSiteNone
		if p.LaxByDefault {
			same = SameSiteLax
		}
	}
	switch {
	case k.Secure && !secure:
		return "it is Secure and the URL is http"
	case k.Partition != "" && k.Partition != c.partition:
		return "it is partitioned, and was set in the tab of another site"
	case same == SameSiteStrict && c.sameSite < strict:
		return "it is SameSite=Strict and another site asks"
	case same == SameSiteLax && c.sameSite < lax:
		if k.SameSite == SameSiteUnset && c.sameSite == laxUnsafe && now.Sub(k.Created) <= p.LaxAllowUnsafe {
			break
		}
		if k.SameSite == SameSiteUnset {
			return "it has no SameSite, which counts as Lax, and another site asks"
		}
		return "it is SameSite=Lax and another site asks, not by a top-level GET"
	case c.thirdParty && c.blockThirdParty && k.Partition == "":
		return "third-party cookies are blocked"
	case c.thirdParty && c.partitionAll && k.Partition == "":
		return "this browser keeps third-party cookies apart, per tab's site"
	}
	return ""
}

// siteFor is "site" for cookies: two origins are of one site if scheme and registrable
// domain are equal.
func sameSite(a, b web.Origin) bool { return !a.IsZero() && !b.IsZero() && web.SameSite(a, b) }

// sameSite is sameSite for the profile's cookies.
func (p *Profile) sameSite(a, b web.Origin) bool {
	return sameSite(a, b) || p.SitesIgnoreScheme && sameSiteHost(a, b)
}

// sameSiteForMetadata is sameSite for Sec-Fetch-Site.
func (p *Profile) sameSiteForMetadata(a, b web.Origin) bool {
	return sameSite(a, b) || p.SitesIgnoreScheme && sameSiteHost(a, b) && trustworthy(a) && trustworthy(b)
}
