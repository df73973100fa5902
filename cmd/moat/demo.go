package main

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/moat-gateway/moat/config"
	"github.com/moat-gateway/moat/demo"
)

// demoConfig is the demo's moat.yaml: what a user would write for such a backend.
const demoConfig = `version: 1
listen: %[1]s
admin: %[2]s
public_origins: [http://%[3]s]
upstreams:
  bank: {url: "%[4]s"}
policies:
  page:
    origins: ["%[5]s"]
routes:
  - match: /api/
    upstream: bank
    auth: public
    policy: page
  # The GET that deletes: declared, so that no image, link or prefetch can trigger it.
  - match: /api/delete-note
    upstream: bank
    auth: public
    policy: page
    side_effects: true
`

// startDemo starts the sample backend and its pages, and returns what loads the gate's
// configuration. Where the usual ports are taken, it moves aside.
func startDemo(f *runFlags) (*demo.Demo, func() (*config.Loaded, error), error) {
	listen, err := freeAddress(f.zero.Listen, "127.0.0.1:8080")
	if err != nil {
		return nil, nil, err
	}
	admin, err := freeAddress(f.zero.Admin, "127.0.0.1:9090")
	if err != nil {
		return nil, nil, err
	}
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, nil, usageError{fmt.Errorf("--listen: %q: not host:port", listen), "for instance 127.0.0.1:8080"}
	}
	public := "localhost:" + port
	d, err := demo.Start(demo.Options{Gate: "http://" + public, Admin: admin})
	if err != nil {
		return nil, nil, err
	}
	text := fmt.Sprintf(demoConfig, listen, admin, public, d.BackendURL(), d.FriendlyOrigin())
	return d, func() (*config.Loaded, error) { return config.Parse("demo", []byte(text), config.Options{}) }, nil
}

// freeAddress is the address that was asked for, or the usual one, or if that is taken
// one that the system chooses. A browser may take localhost for ::1, so a port counts
// as free only if it is on both.
func freeAddress(asked, usual string) (string, error) {
	if asked != "" {
		return asked, nil
	}
	_, port, err := net.SplitHostPort(usual)
	if err != nil {
		return "", err
	}
	for _, candidate := range []string{port, "0"} {
		l, lErr := net.Listen("tcp", "127.0.0.1:"+candidate) //nolint:noctx // closed at once.
		if lErr != nil {
			err = lErr
			continue
		}
		defer l.Close()                                      //nolint:errcheck // it was only a probe.
		six, sixErr := net.Listen("tcp", "[::1]:"+candidate) //nolint:noctx // closed at once.
		if sixErr == nil {
			six.Close() //nolint:errcheck // it was only a probe.
		}
		if !errors.Is(sixErr, syscall.EADDRINUSE) {
			return l.Addr().String(), nil
		}
		err = sixErr
	}
	return "", fmt.Errorf("no free port on the loopback interface: %w", err)
}
