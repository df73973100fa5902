package e2e

import (
	"os/exec"
	"testing"
)

// program is the path of an external program. It is the only way for a test to find
// one, so that nothing is executed that `make setup` does not install.
func program(t *testing.T, name string) string {
	t.Helper()
	for _, p := range Programs {
		if p.Name != name {
			continue
		}
		for _, file := range p.FoundAs {
			if path, err := exec.LookPath(file); err == nil {
				return path
			}
		}
		t.Fatalf("%s is not in PATH (looked for %q); run make setup", name, p.FoundAs)
	}
	t.Fatalf("%s is not in Programs; add it there and to the table of scripts/setup.sh", name)
	return ""
}
