package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/moat-gateway/moat/lab"
)

// labPort is the first that is tried, and labPorts how many are, before the system chooses.
const (
	labPort  = 7700
	labPorts = 20
)

type labFlags struct {
	listen, public, stranger string
	https, byAddress, noOpen bool
}

func labCommand() *cobra.Command {
	var f labFlags
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Watch your own browser do it: lessons with real servers on this machine",
		Long: "Starts a bank, its API, a sibling subdomain, a stranger's site and a real moat, all on this\n" +
			"machine, and opens the browser. Nothing is installed, and nothing leaves the machine.\n\n" +
			"For a class, behind a server that ends TLS for *.lab.example.com and passes Host on:\n\n" +
			"  moat lab --public https://lab.example.com --stranger https://lab.example.net",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.listen, "listen", "", "the `address` to listen on (default 127.0.0.1:7700, and [::1] too; if that is taken, the next port)")
	flags.BoolVar(&f.https, "https", false, "speak https, with a certificate authority for localhost alone that you can trust and forget again")
	flags.StringVar(&f.public, "public", "", "share it: the `origin` under which others reach it; each visitor gets subdomains of his own")
	flags.StringVar(&f.stranger, "stranger", "", "with --public, an `origin` of another site, for the stranger's pages")
	flags.BoolVar(&f.byAddress, "by-address", false, "use addresses and ports, for browsers that do not resolve bank.localhost (Safari)")
	flags.BoolVar(&f.noOpen, "no-open", false, "do not open the browser")
	cmd.AddCommand(labExportCommand())
	return cmd
}

func (f *labFlags) run(cmd *cobra.Command) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := f.check(); err != nil {
		return err
	}
	lessons, err := lab.Lessons()
	if err != nil {
		return err
	}
	listeners, names, err := f.open(ctx)
	if err != nil {
		return err
	}
	o := lab.Options{Names: names, Lessons: lessons, Log: slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))}
	var authority *lab.Authority
	if f.https {
		if authority, o.TLS, err = localTLS(names, time.Now()); err != nil {
			for _, l := range listeners {
				l.Close() //nolint:errcheck // nothing has come by it
			}
			return err
		}
	}
	out := cmd.OutOrStdout()
	f.guide(out, names, listeners[0].Addr().String(), authority)
	if url := names.Door(); !f.noOpen && f.public == "" && isTerminal(out) {
		if err = openBrowser(ctx, url); err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "moat: no browser was opened (%v): open %s yourself\n", err, url)
		}
	}
	if err = lab.New(o).Serve(ctx, listeners...); ctx.Err() != nil {
		return nil
	}
	return err
}

// check finds flags that contradict each other.
func (f *labFlags) check() error {
	switch {
	case f.stranger != "" && f.public == "":
		return usageError{errors.New("--stranger is for --public alone"), "without --public the stranger is at stranger.localhost"}
	case f.public != "" && f.https:
		return usageError{errors.New("--https is for this machine's own names, and --public for those of others"), "with --public, TLS ends at the server in front of the lab; leave out --https"}
	case f.public != "" && f.byAddress:
		return usageError{errors.New("--by-address and --public exclude each other"), "a shared lab has names of its own; leave out --by-address"}
	case f.byAddress && f.listen != "":
		return usageError{errors.New("--by-address listens on a port for each role, so --listen cannot say which"), "leave out --listen"}
	case f.listen == "":
		return nil
	}
	host, _, err := net.SplitHostPort(f.listen)
	if err != nil {
		return usageError{fmt.Errorf("--listen: %q: not host:port", f.listen), "for instance 127.0.0.1:7700"}
	}
	if a, err := netip.ParseAddr(host); f.public == "" && (err != nil || !a.IsLoopback()) {
		return usageError{
			fmt.Errorf("--listen: %q: other machines could reach it, and everybody would share one world", f.listen),
			"listen on 127.0.0.1, or share the lab with --public",
		}
	}
	return nil
}

// open listens, and says what everybody is called there.
func (f *labFlags) open(ctx context.Context) ([]net.Listener, lab.Names, error) {
	scheme := "http"
	if f.https {
		scheme = "https"
	}
	if f.byAddress {
		var all []net.Listener
		ports := map[lab.Role]string{}
		for _, role := range []lab.Role{lab.RoleLab, lab.RoleBank, lab.RoleAPI, lab.RoleGate, lab.RoleBlog, lab.RoleStranger} {
			listeners, port, err := anyPort(ctx)
			if err != nil {
				return nil, lab.Names{}, err
			}
			all, ports[role] = append(all, listeners...), port
		}
		return all, lab.ByAddress(scheme, ports), nil
	}
	var (
		listeners []net.Listener
		port      string
		err       error
	)
	names := lab.Names{}
	if f.public != "" {
		if names, err = lab.Public(f.public, f.stranger); err != nil {
			return nil, names, usageError{err, "write the origins as browsers have them, and give the stranger a domain of its own"}
		}
	}
	if f.listen == "" {
		listeners, port, err = anyPort(ctx)
	} else {
		listeners, port, err = loopback(ctx, f.listen)
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		err = hintedError{err, "another lab may be running; leave out --listen, and a free port is found"}
	}
	if f.public == "" {
		names = lab.Localhost(scheme, port)
	}
	return listeners, names, err
}

// anyPort listens on the first port that is free, beginning with the usual one: what a page
// remembers belongs to its port.
func anyPort(ctx context.Context) ([]net.Listener, string, error) {
	for port := labPort; port < labPort+labPorts; port++ {
		listeners, text, err := loopback(ctx, "127.0.0.1:"+strconv.Itoa(port))
		if !errors.Is(err, syscall.EADDRINUSE) {
			return listeners, text, err
		}
	}
	return loopback(ctx, "127.0.0.1:0")
}

// loopback listens on the address and, where it is 127.0.0.1, on the same port of ::1:
// browsers may take localhost for either, so one that is another program's there will not do.
func loopback(ctx context.Context, address string) (listeners []net.Listener, port string, err error) {
	var lc net.ListenConfig
	first, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, "", err
	}
	host, port, err := net.SplitHostPort(first.Addr().String())
	if err != nil {
		return nil, "", errors.Join(err, first.Close())
	}
	listeners = append(listeners, first)
	if host == "127.0.0.1" {
		six, err := lc.Listen(ctx, "tcp", "[::1]:"+port)
		switch {
		case err == nil:
			listeners = append(listeners, six)
		case errors.Is(err, syscall.EADDRINUSE):
			return nil, "", errors.Join(err, first.Close())
		}
	}
	return listeners, port, nil
}

// localTLS makes a certificate for the names, by the authority in the user's own folder.
func localTLS(names lab.Names, now time.Time) (*lab.Authority, *tls.Config, error) {
	folder, err := os.UserConfigDir()
	if err != nil {
		return nil, nil, hintedError{fmt.Errorf("--https: %w", err), "the lab keeps its certificate authority there"}
	}
	authority, err := lab.OpenAuthority(filepath.Join(folder, "moat", "lab"), now)
	if err != nil {
		return nil, nil, fmt.Errorf("--https: %w", err)
	}
	config, err := authority.Config(names, now)
	return authority, config, err
}

// guide says what is where.
func (f *labFlags) guide(w io.Writer, n lab.Names, address string, authority *lab.Authority) {
	if f.public != "" {
		fmt.Fprintf(w, "The lab listens on %s, for visitors of %s\n", address, n.Door())
		if f.stranger == "" {
			fmt.Fprintln(w, "Without --stranger everybody is of one site, and lessons about other sites show less.")
		}
		fmt.Fprintln(w, "Ctrl-C ends it.")
		return
	}
	o := n.Origins("")
	fmt.Fprintf(w, "The lab is at %s\n", n.Door())
	fmt.Fprintf(w, "  the bank      %s, its API %s\n", o[lab.RoleBank], o[lab.RoleAPI])
	fmt.Fprintf(w, "  moat          %s, in front of the same API\n", o[lab.RoleGate])
	fmt.Fprintf(w, "  its blog      %s, of the same site\n", o[lab.RoleBlog])
	fmt.Fprintf(w, "  the stranger  %s, of another site\n", o[lab.RoleStranger])
	if f.byAddress {
		fmt.Fprintln(w, "All ports of localhost are of one site, and share their cookies. 127.0.0.1 is another site.")
	}
	if authority != nil {
		trust(w, authority)
	}
	fmt.Fprintln(w, "Ctrl-C ends it.")
}

// trust says how a browser is told to trust the authority, and how it forgets it.
func trust(w io.Writer, a *lab.Authority) {
	fmt.Fprintf(w, "Its certificates are signed by %s, which is good for localhost alone.", a.File)
	if a.New {
		fmt.Fprint(w, " It is new.")
	}
	fmt.Fprint(w, "\nNothing was told to trust it. To do so:\n"+
		"  Chromium  chrome://certificate-manager, Custom, Installed by you, Trusted Certificates: Import\n"+
		"  Firefox   Settings, Privacy & Security, View Certificates, Authorities: Import, to identify websites\n")
	fmt.Fprintf(w, "  curl      curl --cacert %q …\n", a.File)
	fmt.Fprintf(w, "To end that, delete \"moat lab\" where you imported it, and the folder %s\n", filepath.Dir(a.File))
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// openBrowser opens the system's browser.
func openBrowser(ctx context.Context, url string) error {
	name, args, err := browserCommand(runtime.GOOS, os.Getenv)
	if err != nil {
		return err
	}
	// It may become the browser itself, which outlives the lab.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), name, append(args, url)...) //nolint:gosec // the URL is the lab's own
	if err := cmd.Start(); err != nil {
		return err
	}
	go cmd.Wait() //nolint:errcheck // whether it could show a page is for the reader to see
	return nil
}

// browserCommand is what opens a URL, which is added to it. Where there is no screen it is an
// error.
func browserCommand(system string, getenv func(string) string) (name string, args []string, err error) {
	switch {
	case system == "darwin":
		return "open", nil, nil
	case system == "windows":
		return "rundll32", []string{"url.dll,FileProtocolHandler"}, nil
	case getenv("DISPLAY") == "" && getenv("WAYLAND_DISPLAY") == "":
		return "", nil, errors.New("there is no display")
	}
	return "xdg-open", nil, nil
}

func labExportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "export DIR",
		Short: "Write the lessons and their runs, recorded, as pages that need no lab",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			lessons, err := lab.Lessons()
			if err != nil {
				return err
			}
			err = lab.Export(cmd.Context(), args[0], lessons)
			if errors.Is(err, lab.ErrNoExport) {
				return hintedError{err, "name a folder that is empty, or not there yet"}
			}
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "%d lessons: open %s\n", len(lessons), filepath.Join(args[0], "index.html"))
			}
			return err
		},
	}
}
