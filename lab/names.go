package lab

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"strings"

	"github.com/moat-gateway/moat/web"
)

// Role is one of those who take part. Each has an origin of its own.
type Role string

// The roles.
const (
	// RoleLab is the lab itself: the table of contents and the tools.
	RoleLab Role = "lab"
	// RoleBank is the site whose users are at stake, and RoleAPI its API.
	RoleBank Role = "bank"
	RoleAPI  Role = "api"
	// RoleGate is moat, in front of the same API.
	RoleGate Role = "gate"
	// RoleBlog is on a sibling subdomain of the bank: same site, other origin.
	RoleBlog Role = "blog"
	// RoleStranger is anybody's page: another site.
	RoleStranger Role = "stranger"
)

// sites are the roles that have a page; the others only answer.
var sites = []Role{RoleLab, RoleBank, RoleBlog, RoleStranger}

// Names says which origin each role has.
type Names struct {
	scheme string
	// hosts are those of the roles, with their port if it is not the scheme's. In a shared
	// lab "*" stands for the visitor.
	hosts map[Role]string
	// shared is set if every visitor has origins of his own.
	shared bool
	// door is the host of a shared lab's front page, where visitors get their own hosts.
	door string
}

// Localhost are names below localhost, which browsers resolve to this machine without
// asking anybody. bank.localhost and stranger.localhost are two sites, for localhost counts
// as a public suffix; api.bank.localhost is of the bank's site.
func Localhost(scheme, port string) Names {
	port = suffix(scheme, port)
	return Names{scheme: scheme, hosts: map[Role]string{
		RoleLab: "localhost" + port, RoleBank: "bank.localhost" + port, RoleAPI: "api.bank.localhost" + port,
		RoleGate: "gate.bank.localhost" + port, RoleBlog: "blog.bank.localhost" + port, RoleStranger: "stranger.localhost" + port,
	}}
}

// ByAddress are names for browsers that do not resolve those below localhost: addresses, and a
// port for each role. localhost is a host, and its ports are of one site; 127.0.0.1 is another
// site. ports has one for each of the roles.
func ByAddress(scheme string, ports map[Role]string) Names {
	n := Names{scheme: scheme, hosts: map[Role]string{}}
	for r, port := range ports {
		host := "localhost"
		if r == RoleStranger {
			host = "127.0.0.1"
		}
		n.hosts[r] = host + suffix(scheme, port)
	}
	return n
}

// suffix is a port as it stands behind a host. A browser leaves the scheme's own out, of the
// Host field too.
func suffix(scheme, port string) string {
	if scheme == "http" && port == "80" || scheme == "https" && port == "443" {
		return ""
	}
	return ":" + port
}

// Origin is a role's origin, as the visitor has it.
func (n Names) Origin(r Role, visitor string) string {
	return n.scheme + "://" + strings.ReplaceAll(n.hosts[r], "*", visitor)
}

// Origins are those of all roles.
func (n Names) Origins(visitor string) map[Role]string {
	all := map[Role]string{}
	for r := range maps.Keys(n.hosts) {
		all[r] = n.Origin(r, visitor)
	}
	return all
}

// Find tells whose host it is. Any other is refused: a page whose name was rebound to this
// machine has a name that is not here.
func (n Names) Find(host string) (r Role, visitor string, ok bool) {
	host = strings.ToLower(host)
	for r, pattern := range n.hosts {
		before, after, many := strings.Cut(pattern, "*")
		if !many {
			if host == pattern {
				return r, "", true
			}
			continue
		}
		if id, found := strings.CutPrefix(host, before); found {
			if id, found = strings.CutSuffix(id, after); found && isVisitor(id) {
				return r, id, true
			}
		}
	}
	return "", "", false
}

// fill puts the origins in the place of their names: "{api}/data" is a URL then.
func (n Names) fill(text, visitor string, more ...string) string {
	pairs := more
	for r, origin := range n.Origins(visitor) {
		pairs = append(pairs, "{"+string(r)+"}", origin)
		host := strings.TrimPrefix(origin, n.scheme+"://")
		ws := "ws"
		if n.scheme == "https" {
			ws = "wss"
		}
		pairs = append(pairs, "{"+string(r)+":ws}", ws+"://"+host, "{"+string(r)+":host}", host)
	}
	pairs = append(pairs, "{site}", n.site(visitor))
	return strings.NewReplacer(pairs...).Replace(text)
}

// site is the name that the bank's page and its API have in common: a cookie with this
// Domain is for both.
func (n Names) site(visitor string) string {
	host := func(r Role) string {
		u, err := url.Parse(n.Origin(r, visitor))
		if err != nil {
			panic(err) // New made it
		}
		return u.Hostname()
	}
	bank, api := host(RoleBank), host(RoleAPI)
	for !strings.HasSuffix("."+api, "."+bank) {
		_, above, found := strings.Cut(bank, ".")
		if !found {
			break // they have nothing in common, and a browser refuses such a Domain
		}
		bank = above
	}
	return bank
}

// Door is where everybody begins.
func (n Names) Door() string {
	if n.door != "" {
		return n.scheme + "://" + n.door
	}
	return n.Origin(RoleLab, "")
}

func (n Names) isDoor(host string) bool { return n.door != "" && strings.EqualFold(host, n.door) }

// Public are names below a domain of one's own, behind a server that ends TLS: every
// visitor has hosts of his own, "bank-ID.domain", and the domain itself is the door. stranger
// is a second domain, of another site; without it strangers are only of another origin.
func Public(base, stranger string) (Names, error) {
	o, err := publicOrigin(base)
	if err != nil {
		return Names{}, err
	}
	n := Names{scheme: o.Scheme(), shared: true, door: o.HostPort(), hosts: map[Role]string{}}
	for _, r := range []Role{RoleLab, RoleBank, RoleAPI, RoleGate, RoleBlog, RoleStranger} {
		n.hosts[r] = string(r) + "-*." + o.HostPort()
	}
	if stranger == "" {
		return n, nil
	}
	other, err := publicOrigin(stranger)
	switch {
	case err != nil:
		return Names{}, err
	case other.Scheme() != o.Scheme():
		return Names{}, fmt.Errorf("%q and %q: one is http and one https", base, stranger)
	case other.Site() == o.Site():
		return Names{}, fmt.Errorf("%q and %q: both are of the site %s, and the stranger is one of another", base, stranger, o.Site())
	}
	n.hosts[RoleStranger] = "stranger-*." + other.HostPort()
	return n, nil
}

func publicOrigin(text string) (web.Origin, error) {
	o, err := web.ParseOrigin(text)
	if err != nil {
		return o, err
	}
	if o.Scheme() != "http" && o.Scheme() != "https" {
		return o, fmt.Errorf("%q: neither http nor https", text)
	}
	if net.ParseIP(strings.Trim(o.Host(), "[]")) != nil {
		return o, fmt.Errorf("%q: an address has no subdomains, and every visitor needs his own", text)
	}
	return o, nil
}
