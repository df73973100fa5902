package e2e

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const setupScript = "../scripts/setup.sh"

// setupRow is one line of the table in scripts/setup.sh.
type setupRow struct {
	neededBy string
	foundAs  []string
	debian   []string
}

func setupTable(t *testing.T) map[string]setupRow {
	t.Helper()
	script, err := os.ReadFile(setupScript)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, opened := strings.Cut(string(script), "\ntable='\n")
	table, _, closed := strings.Cut(rest, "\n'\n")
	if !opened || !closed {
		t.Fatalf("%s has no table", setupScript)
	}
	rows := map[string]setupRow{}
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] == "#" {
			continue
		}
		if len(f) != 8 {
			t.Fatalf("%s: row %q has %d fields; want 8", setupScript, line, len(f))
		}
		if _, dup := rows[f[0]]; dup {
			t.Errorf("%s: %s has two rows", setupScript, f[0])
		}
		rows[f[0]] = setupRow{neededBy: f[1], foundAs: strings.Split(f[2], ","), debian: strings.Split(f[3], ",")}
	}
	return rows
}

func TestSetupInstallsExactlyThePrograms(t *testing.T) {
	rows := setupTable(t)
	for _, p := range Programs {
		row, ok := rows[p.Name]
		switch {
		case !ok:
			t.Errorf("the tests execute %s, but %s has no row for it", p.Name, setupScript)
		case row.neededBy != "e2e":
			t.Errorf("the row of %s says that it is needed by %s; want e2e", p.Name, row.neededBy)
		case !slices.Equal(row.foundAs, p.FoundAs):
			t.Errorf("%s: the script looks for %q, the tests for %q", p.Name, row.foundAs, p.FoundAs)
		case slices.Contains(row.debian, "-"):
			t.Errorf("the row of %s names no Debian package", p.Name)
		}
	}
	for name, row := range rows {
		listed := slices.ContainsFunc(Programs, func(p Program) bool { return p.Name == name })
		if row.neededBy == "e2e" && !listed {
			t.Errorf("%s installs %s for these tests, but Programs does not list it", setupScript, name)
		}
	}
}

// Programs is worth something only if nothing is executed past it: no test of this
// package may name a program anywhere but in a call of program.
func TestTestsExecuteOnlyPrograms(t *testing.T) {
	// The toolchain that runs this test, and the shell that every system has.
	given := []string{"go", "/bin/sh"}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	for _, file := range files {
		tree, err := parser.ParseFile(fset, file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		// chromedp looks for a browser by itself unless it is told one.
		var startsBrowser, namesBrowser bool
		ast.Inspect(tree, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			at := fset.Position(call.Pos())
			switch name := callee(call); {
			case name == "exec.LookPath" && file != "programs_test.go":
				t.Errorf("%v: exec.LookPath; find programs with program(t, name)", at)
			case name == "exec.Command" || name == "exec.CommandContext":
				i := strings.Count(name, "Context")
				if lit, ok := literal(call, i); ok && !slices.Contains(given, lit) {
					t.Errorf("%v: executes %q by name; find it with program(t, %q)", at, lit, lit)
				}
			case name == "chromedp.NewExecAllocator":
				startsBrowser = true
			case name == "chromedp.ExecPath":
				namesBrowser = true
			case name == "program":
				lit, ok := literal(call, 1)
				if !ok {
					t.Errorf("%v: program wants its name spelled out, so that this test can read it", at)
				} else if !slices.ContainsFunc(Programs, func(p Program) bool { return p.Name == lit }) {
					t.Errorf("%v: program(t, %q) is not in Programs", at, lit)
				}
			}
			return true
		})
		if startsBrowser && !namesBrowser {
			t.Errorf("%s starts a browser without chromedp.ExecPath(program(t, %q))", file, "chromium")
		}
	}
}

func callee(call *ast.CallExpr) string {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		if pkg, ok := f.X.(*ast.Ident); ok {
			return pkg.Name + "." + f.Sel.Name
		}
	}
	return ""
}

func literal(call *ast.CallExpr, arg int) (string, bool) {
	if arg >= len(call.Args) {
		return "", false
	}
	lit, ok := call.Args[arg].(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

// machine is a stand-in for the computer that scripts/setup.sh runs on: a PATH that
// holds only what a test put there, and a checkout with nothing but the script and the
// lock files. Nothing is installed: apt-get, sudo and npm only write down how they were
// called, and apt-get then links the programs of the packages into PATH.
type machine struct {
	t    *testing.T
	dir  string
	path string // the only directory in PATH
	user string // what id -u answers
}

// debian says which programs a package brings, as Debian does.
const debian = `
chromium) echo chromium ;;
nodejs) echo node ;;
npm) echo npm ;;
curl) echo curl ;;
nginx) echo nginx ;;
caddy) echo caddy ;;
redis-server) echo redis-server ;;
xvfb) echo Xvfb ;;
firefox-esr) echo firefox-esr ;;
gcc) echo gcc ;;
`

// npmFolders have npm packages of their own.
var npmFolders = []string{"e2e/express", "e2e/oidc", "e2e/providers", "client", "lab/web", "dashboard/web"}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, dir: t.TempDir(), user: "0"}
	m.path = filepath.Join(m.dir, "path")
	script, err := os.ReadFile(setupScript)
	if err != nil {
		t.Fatal(err)
	}
	m.write("checkout/scripts/setup.sh", string(script), 0o600)
	for _, folder := range npmFolders {
		m.write("checkout/"+folder+"/package-lock.json", "{}", 0o600)
		// The installation below must come out younger, however coarse the clock is.
		hourAgo := time.Now().Add(-time.Hour)
		if err := os.Chtimes(filepath.Join(m.dir, "checkout", folder, "package-lock.json"), hourAgo, hourAgo); err != nil {
			t.Fatal(err)
		}
	}
	m.write("os-release", "ID=debian\n", 0o600)
	m.stub("id", `echo "$ID"`)
	for _, name := range []string{"chromium", "firefox-esr", "curl", "caddy", "redis-server", "gcc"} {
		m.packaged(name, "echo "+name+" 1.0\necho built for tests")
	}
	m.packaged("Xvfb", `[ "$1" = -help ] && echo "use: X" >&2`)
	m.packaged("nginx", `[ "$1" = -v ] && echo nginx 1.0 >&2`)
	m.packaged("node", "echo v20.1.0")
	m.packaged("npm", `[ "$1" = --version ] && echo 10.0 && exit 0
echo "npm $* in ${PWD##*/}" >>"$CALLS"
PATH=/usr/bin:/bin mkdir -p node_modules
: >node_modules/.package-lock.json`)
	return m
}

// hasApt gives the machine Debian's package manager.
func (m *machine) hasApt() {
	m.stub("apt-get", `echo "apt-get $*" >>"$CALLS"
[ "$1" = install ] || exit 0
for package; do
	for name in $(case $package in `+debian+` esac); do
		PATH=/usr/bin:/bin ln -sf "$PACKAGES/$name" "$BIN/$name"
	done
done`)
}

// has puts programs on the machine as if they had been installed before.
func (m *machine) has(names ...string) {
	m.t.Helper()
	for _, name := range names {
		if err := os.Symlink(filepath.Join(m.dir, "packages", name), filepath.Join(m.path, name)); err != nil {
			m.t.Fatal(err)
		}
	}
}

func (m *machine) hasNpmPackages() {
	for _, folder := range npmFolders {
		m.write("checkout/"+folder+"/node_modules/.package-lock.json", "{}", 0o600)
	}
}

func (m *machine) stub(name, body string) { m.write("path/"+name, "#!/bin/sh\n"+body+"\n", 0o700) }

func (m *machine) packaged(name, body string) {
	m.write("packages/"+name, "#!/bin/sh\n"+body+"\n", 0o700)
}

func (m *machine) write(name, content string, mode fs.FileMode) {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		m.t.Fatal(err)
	}
}

// setup runs the script and returns what it printed, what it called, and whether it
// succeeded.
func (m *machine) setup() (output string, calls []string, ok bool) {
	m.t.Helper()
	calledFile := filepath.Join(m.dir, "calls")
	if err := os.RemoveAll(calledFile); err != nil {
		m.t.Fatal(err)
	}
	cmd := exec.CommandContext(m.t.Context(), "/bin/sh", filepath.Join(m.dir, "checkout/scripts/setup.sh"))
	cmd.Env = []string{
		"PATH=" + m.path,
		"BIN=" + m.path,
		"PACKAGES=" + filepath.Join(m.dir, "packages"),
		"CALLS=" + calledFile,
		"ID=" + m.user,
		"OS_RELEASE_FILE=" + filepath.Join(m.dir, "os-release"),
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.t.Fatal(err)
	}
	called, readErr := os.ReadFile(calledFile)
	if readErr != nil && !errors.Is(readErr, fs.ErrNotExist) {
		m.t.Fatal(readErr)
	}
	return string(out), strings.Split(strings.TrimSuffix(string(called), "\n"), "\n"), err == nil
}

func (m *machine) succeeds(wantCalls ...string) string {
	m.t.Helper()
	out, calls, ok := m.setup()
	if !ok {
		m.t.Fatalf("setup failed:\n%s", out)
	}
	if strings.Join(calls, "\n") != strings.Join(wantCalls, "\n") {
		m.t.Errorf("setup called\n%q\nwant\n%q\nits output was\n%s", calls, wantCalls, out)
	}
	return out
}

func (m *machine) fails(wantCalls []string, wantOutput ...string) {
	m.t.Helper()
	out, calls, ok := m.setup()
	if ok {
		m.t.Errorf("setup succeeded:\n%s", out)
	}
	if strings.Join(calls, "\n") != strings.Join(wantCalls, "\n") {
		m.t.Errorf("setup called\n%q\nwant\n%q", calls, wantCalls)
	}
	for _, want := range wantOutput {
		if !strings.Contains(out, want) {
			m.t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
}

func TestSetupOnABareMachineInstallsEverything(t *testing.T) {
	m := newMachine(t)
	m.hasApt()
	out := m.succeeds(
		"apt-get update",
		"apt-get install -y --no-install-recommends chromium firefox-esr nodejs npm curl nginx caddy redis-server xvfb gcc libc6-dev",
		"npm ci --no-audit --no-fund in express",
		"npm ci --no-audit --no-fund in oidc",
		"npm ci --no-audit --no-fund in providers",
		"npm ci --no-audit --no-fund in client",
		"npm ci --no-audit --no-fund in web",
		"npm ci --no-audit --no-fund in web",
	)
	missing := strings.Index(out, "setup: missing: chromium firefox node npm curl nginx caddy valkey xvfb gcc\n")
	running := strings.Index(out, "setup: running: apt-get install -y")
	if missing < 0 || running < missing {
		t.Errorf("it must say what is missing, then what it runs:\n%s", out)
	}
	if !strings.Contains(out, "chromium 1.0\n") || strings.Contains(out, "built for tests") {
		t.Errorf("want the first line of each program's version:\n%s", out)
	}
	if out := m.succeeds(""); out != "setup: nothing to install\n" {
		t.Errorf("the second run printed\n%s", out)
	}
}

func TestSetupInstallsOnlyWhatIsMissing(t *testing.T) {
	m := newMachine(t)
	m.hasApt()
	m.hasNpmPackages()
	m.has("node", "npm", "gcc", "curl", "nginx", "caddy", "redis-server", "Xvfb", "firefox-esr")
	m.succeeds("apt-get update", "apt-get install -y --no-install-recommends chromium")
}

func TestSetupInstallsAgainWhenTheLockFileIsYounger(t *testing.T) {
	m := newMachine(t)
	m.hasNpmPackages()
	m.has("chromium", "node", "npm", "curl", "gcc", "nginx", "caddy", "redis-server", "Xvfb", "firefox-esr")
	m.succeeds("")
	for _, folder := range npmFolders {
		lock := filepath.Join(m.dir, "checkout", folder, "package-lock.json")
		inAnHour, before := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
		if err := os.Chtimes(lock, inAnHour, inAnHour); err != nil {
			t.Fatal(err)
		}
		m.succeeds("npm ci --no-audit --no-fund in " + filepath.Base(folder))
		if err := os.Chtimes(lock, before, before); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSetupTakesAnyChromium(t *testing.T) {
	for _, name := range []string{"chromium-browser", "google-chrome", "google-chrome-stable"} {
		m := newMachine(t)
		m.hasNpmPackages()
		m.has("node", "npm", "curl", "gcc", "nginx", "caddy", "redis-server", "Xvfb", "firefox-esr")
		m.stub(name, "echo Chrome 1")
		m.succeeds("")
	}
}

func TestSetupTakesAnyFirefox(t *testing.T) {
	m := newMachine(t)
	m.hasNpmPackages()
	m.has("chromium", "node", "npm", "curl", "gcc", "nginx", "caddy", "redis-server", "Xvfb")
	m.stub("firefox", "echo Mozilla Firefox 1")
	m.succeeds("")
}

func TestSetupTakesValkeyOrRedis(t *testing.T) {
	m := newMachine(t)
	m.hasNpmPackages()
	m.has("chromium", "node", "npm", "curl", "gcc", "nginx", "caddy", "Xvfb", "firefox-esr")
	m.stub("valkey-server", "echo Valkey server v=8.0.1")
	m.succeeds("")
}

func TestSetupUsesSudoWhenNotRoot(t *testing.T) {
	m := newMachine(t)
	m.user = "1000"
	m.hasApt()
	m.hasNpmPackages()
	m.has("chromium", "node", "npm", "gcc", "nginx", "caddy", "redis-server", "Xvfb", "firefox-esr")
	m.fails([]string{""}, "no sudo", "apt-get: curl")
	m.stub("sudo", `echo "sudo $1" >>"$CALLS"; exec "$@"`)
	m.succeeds(
		"sudo apt-get", "apt-get update",
		"sudo apt-get", "apt-get install -y --no-install-recommends curl",
	)
}

func TestSetupReplacesAnOldNode(t *testing.T) {
	install := []string{"apt-get update", "apt-get install -y --no-install-recommends nodejs"}
	m := newMachine(t)
	m.hasApt()
	m.hasNpmPackages()
	m.has("chromium", "npm", "curl", "gcc", "nginx", "caddy", "redis-server", "Xvfb", "firefox-esr")
	m.stub("node", "echo v16.20.2")
	m.succeeds(install...)

	m = newMachine(t)
	m.hasApt()
	m.hasNpmPackages()
	m.has("chromium", "npm", "curl", "gcc", "nginx", "caddy", "redis-server", "Xvfb", "firefox-esr")
	m.packaged("node", "echo v16.20.2") // as old as the distribution
	m.fails(install, "v16.20.2", "20 or later")
}

func TestSetupFailsLoudly(t *testing.T) {
	t.Run("when there is no package manager", func(t *testing.T) {
		m := newMachine(t)
		m.has("chromium", "npm", "gcc", "nginx", "caddy", "redis-server", "Xvfb", "firefox-esr")
		m.fails([]string{""}, "missing: node curl", "none of apt-get", "node: 20 or later")
	})
	t.Run("when the package manager has no such package", func(t *testing.T) {
		m := newMachine(t)
		m.stub("brew", `echo "brew $*" >>"$CALLS"`)
		m.has("node", "npm", "gcc", "nginx", "caddy", "redis-server", "Xvfb", "firefox-esr")
		m.fails([]string{""}, "no package for chromium", "by hand")
	})
	t.Run("when Ubuntu has chromium only as a snap", func(t *testing.T) {
		m := newMachine(t)
		m.hasApt()
		m.write("os-release", "NAME=\"Ubuntu\"\nID=ubuntu\n", 0o600)
		m.has("node", "npm", "curl", "gcc", "nginx", "caddy", "redis-server", "Xvfb", "firefox-esr")
		m.fails([]string{""}, "no package for chromium", "google-chrome")
	})
	t.Run("when Ubuntu has firefox only as a snap", func(t *testing.T) {
		m := newMachine(t)
		m.hasApt()
		m.write("os-release", "NAME=\"Ubuntu\"\nID=ubuntu\n", 0o600)
		m.has("chromium", "node", "npm", "curl", "gcc", "nginx", "caddy", "redis-server", "Xvfb")
		m.fails([]string{""}, "no package for firefox", "by hand")
	})
	t.Run("when the installation fails", func(t *testing.T) {
		m := newMachine(t)
		m.stub("apt-get", `echo "apt-get $1" >>"$CALLS"; [ "$1" = update ]`)
		m.has("node", "npm", "curl", "gcc", "nginx", "caddy", "redis-server", "Xvfb", "firefox-esr")
		m.fails([]string{"apt-get update", "apt-get install"})
	})
	t.Run("when the installation does not bring the program", func(t *testing.T) {
		m := newMachine(t)
		m.stub("apt-get", `echo "apt-get $1" >>"$CALLS"`)
		m.has("node", "npm", "curl", "gcc", "nginx", "caddy", "redis-server", "Xvfb", "firefox-esr")
		m.fails([]string{"apt-get update", "apt-get install"}, "chromium is still missing")
	})
	t.Run("when an installed program does not start", func(t *testing.T) {
		m := newMachine(t)
		m.hasApt()
		m.packaged("chromium", "echo libnss3.so is missing >&2; exit 127")
		m.has("node", "npm", "curl", "gcc", "nginx", "caddy", "redis-server", "Xvfb", "firefox-esr")
		m.fails([]string{"apt-get update", "apt-get install -y --no-install-recommends chromium"},
			"libnss3.so is missing", "--version failed")
	})
	t.Run("when npm fails", func(t *testing.T) {
		m := newMachine(t)
		m.packaged("npm", `echo "npm $1" >>"$CALLS"; exit 1`)
		m.has("chromium", "node", "npm", "curl", "gcc", "nginx", "caddy", "redis-server", "Xvfb", "firefox-esr")
		m.fails([]string{"npm ci"})
	})
}
