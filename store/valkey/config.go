package valkey

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"
)

// Mode is how servers stand together.
type Mode uint8

const (
	// Standalone is one server.
	Standalone Mode = iota
	// Sentinel is a primary that Sentinels know, and that they replace when it fails.
	Sentinel
	// Cluster spreads keys over primaries. See the package documentation for what a Take
	// means there.
	Cluster
)

func (m Mode) String() string {
	switch m {
	case Standalone:
		return "standalone"
	case Sentinel:
		return "sentinel"
	case Cluster:
		return "cluster"
	}
	return "mode(" + strconv.Itoa(int(m)) + ")"
}

// Bounds of Config.Timeout.
const (
	DefaultTimeout = 25 * time.Millisecond
	MinTimeout     = 5 * time.Millisecond
	MaxTimeout     = time.Second
)

// DefaultPrefix is what the names of all keys begin with.
const DefaultPrefix = "moat"

// Config says where the servers are. Printing it shows no password.
type Config struct {
	// Addresses, each "host:port": of the server; of the Sentinels; or of some nodes of
	// the cluster, which know the others.
	Addresses []string
	Mode      Mode
	// Master is the name that the Sentinels have for the primary.
	Master string
	// Username and Password are those of the ACL user. Without a Username the Password is
	// that of the user "default".
	Username, Password string
	// SentinelUsername and SentinelPassword are for the Sentinels.
	SentinelUsername, SentinelPassword string
	// DB is the number of the database. A cluster has only 0.
	DB int
	// TLS is used if it is not nil. A ServerName that is empty is taken from the address.
	TLS *tls.Config
	// Prefix of all keys; empty stands for DefaultPrefix. Stores that share limits have
	// the same.
	Prefix string
	// Timeout bounds each Take, and the wait for each answer of a server, such as that of
	// which nodes a cluster has; 0 stands for DefaultTimeout.
	Timeout time.Duration
}

// Check says everything that is wrong with a Config.
func (c *Config) Check() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf("store/valkey: "+format, args...)) }
	if len(c.Addresses) == 0 {
		wrong("no address; give at least one, host:port")
	}
	for _, a := range c.Addresses {
		host, port, err := net.SplitHostPort(a)
		if n, nerr := strconv.ParseUint(port, 10, 16); err != nil || host == "" || nerr != nil || n == 0 {
			wrong("address %q is not host:port", a)
		}
	}
	switch c.Mode {
	case Standalone:
		if len(c.Addresses) > 1 {
			wrong("%d addresses of a standalone server; several are for sentinel and cluster mode", len(c.Addresses))
		}
	case Sentinel:
		if c.Master == "" {
			wrong("sentinel mode needs the name of the master, as in the line \"sentinel monitor NAME …\" of sentinel.conf")
		}
	case Cluster:
		if c.DB != 0 {
			wrong("database %d: a cluster has only database 0", c.DB)
		}
	default:
		wrong("%v is none of standalone, sentinel, cluster", c.Mode)
	}
	if c.Mode != Sentinel && (c.Master != "" || c.SentinelUsername != "" || c.SentinelPassword != "") {
		wrong("a master's name, user or password for Sentinels, but %v mode does not ask any", c.Mode)
	}
	if c.Username != "" && c.Password == "" || c.SentinelUsername != "" && c.SentinelPassword == "" {
		wrong("a user name without a password")
	}
	if c.DB < 0 {
		wrong("database %d is negative", c.DB)
	}
	if strings.ContainsAny(c.Prefix, "{}") || strings.ContainsFunc(c.Prefix, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		wrong("prefix %q has braces, blanks or other than ASCII characters in it", c.Prefix)
	}
	if c.Timeout != 0 && (c.Timeout < MinTimeout || c.Timeout > MaxTimeout) {
		wrong("timeout %v is not between %v and %v", c.Timeout, MinTimeout, MaxTimeout)
	}
	return errors.Join(errs...)
}

// String says where the servers are and who asks them, without passwords.
func (c Config) String() string {
	s := c.Mode.String() + " " + strings.Join(c.Addresses, ",")
	if c.Master != "" {
		s += " master " + c.Master
	}
	if c.Username != "" {
		s += " user " + c.Username
	}
	if c.TLS != nil {
		s += " tls"
	}
	return s
}

// Format keeps passwords out of whatever fmt prints.
func (c Config) Format(f fmt.State, _ rune) { io.WriteString(f, c.String()) } //nolint:errcheck // nobody could be told

// LogValue keeps passwords out of logs.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText keeps passwords out of JSON.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.String()), nil }
