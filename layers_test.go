package moat_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// layers is the import order: a package imports only from lines above its own, and
// packages of one line do not import each other. A name that ends in "/" stands for
// everything below it.
var layers = [][]string{
	{"web", "client", "dashboard"},
	{"browser"},
	{"browser/"},
	{"explain"},
	{"explain/"},
	{"guard"},
	{"guard/identity/internal/"},
	{"guard/identity"},
	{"guard/", "wire"},
	{"alert"},
	{"store/storetest"},
	{"store/"},
	{"gateway"},
	{"config"},
	{"config/onpaper"},
	{"demo", "lab", "run"},
	{"cmd/moat"},
	{"e2e"},
	{"e2e/"},
}

// forbidden keeps what belongs to the edges out of the core: guards know no YAML, no
// metrics, no store.
var forbidden = map[string][]string{
	"web":     {"go.yaml.in/", "github.com/prometheus/", "github.com/spf13/"},
	"browser": {"net/http", "go.yaml.in/", "github.com/prometheus/", "github.com/spf13/"},
	"explain": {"go.yaml.in/", "github.com/prometheus/", "github.com/spf13/"},
	"guard":   {"go.yaml.in/", "github.com/prometheus/", "github.com/spf13/"},
	"alert":   {"go.yaml.in/", "github.com/prometheus/", "github.com/spf13/"},
	"wire":    {"go.yaml.in/", "github.com/prometheus/", "github.com/spf13/"},
	"gateway": {"go.yaml.in/", "github.com/spf13/"},
	"config":  {"github.com/prometheus/", "github.com/spf13/"},
}

// pure are packages that also run where there is no network: in a browser, as WebAssembly.
var pure = map[string][]string{"explain": {"net/http", "os"}, "explain/text": {"net/http", "os"}}

const module = "github.com/moat-gateway/moat"

func layer(t *testing.T, pkg string) int {
	t.Helper()
	for i, line := range layers {
		for _, name := range line {
			if pkg == name || strings.HasSuffix(name, "/") && strings.HasPrefix(pkg, name) {
				return i
			}
		}
	}
	t.Errorf("package %s is in no layer: give it a line in layers_test.go", pkg)
	return -1
}

func TestPackagesImportOnlyFromLayersAbove(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		pkg, ok := strings.CutPrefix(fields[0], module+"/")
		if !ok {
			continue // the root holds only documentation
		}
		own := layer(t, pkg)
		top, _, _ := strings.Cut(pkg, "/")
		for _, imported := range fields[1:] {
			if slices.Contains(pure[pkg], imported) || slices.ContainsFunc(forbidden[top], func(p string) bool { return strings.HasPrefix(imported, p) }) {
				t.Errorf("%s imports %s", pkg, imported)
			}
			dep, ok := strings.CutPrefix(imported, module+"/")
			if ok && layer(t, dep) >= own {
				t.Errorf("%s imports %s, which is not in a layer above it", pkg, dep)
			}
		}
	}
}
