package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/moat-gateway/moat/explain"
)

// TestPageLogic runs the page's own tests of what needs no browser: completion, links, what
// is written for other programs. make setup installs node and what is in package.json.
func TestPageLogic(t *testing.T) {
	if testing.Short() {
		t.Skip("runs node, which takes seconds: run without -short (make test does)")
	}
	path, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("node is not in PATH; run make setup")
	}
	har := filepath.Join(t.TempDir(), "run.har")
	cmd := exec.CommandContext(t.Context(), path, "test/run.mjs")
	cmd.Dir, cmd.Env = "web", append(os.Environ(), "LAB_HAR="+har)
	if out, runErr := cmd.CombinedOutput(); runErr != nil {
		t.Fatalf("%v\n%s", runErr, out)
	}
	data, err := os.ReadFile(har)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := explain.FromHAR(data)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || len(entries[0].Recorded) != 2 || entries[0].Request.Method != "POST" {
		t.Errorf("of a preflight and its POST, explain reads %+v", entries)
	}
}
