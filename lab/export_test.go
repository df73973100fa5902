package lab

import (
	"bytes"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	dom "golang.org/x/net/html"
)

// exported are the files of an export, by name.
func exported(t *testing.T, dir string, lessons []Lesson) map[string][]byte {
	t.Helper()
	if err := Export(t.Context(), dir, lessons); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files[name], err = os.ReadFile(filepath.Join(dir, name))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func allLessons(t *testing.T) []Lesson {
	t.Helper()
	lessons, err := Lessons()
	if err != nil {
		t.Fatal(err)
	}
	return lessons
}

func TestExportIsTheSameEveryTime(t *testing.T) {
	lessons := allLessons(t)
	first, second := exported(t, t.TempDir(), lessons), exported(t, t.TempDir(), lessons)
	if len(first) != len(lessons)+3 || len(second) != len(first) {
		t.Errorf("%d and %d files for %d lessons", len(first), len(second), len(lessons))
	}
	for name, b := range first {
		if !bytes.Equal(b, second[name]) {
			t.Errorf("%s differs: %s", name, difference(b, second[name]))
		}
	}
}

// difference is the first line that is not the same.
func difference(a, b []byte) string {
	other := strings.Split(string(b), "\n")
	for i, line := range strings.Split(string(a), "\n") {
		if i >= len(other) || line != other[i] {
			return line + "\n" + strings.Join(other[min(i, len(other)):min(i+1, len(other))], "")
		}
	}
	return "its length"
}

// TestExportStandsAlone: it asks nobody for anything, and leads only to pages that exist.
func TestExportStandsAlone(t *testing.T) {
	files := exported(t, t.TempDir(), allLessons(t))
	port := regexp.MustCompile(`\.localhost:\d|127\.0\.0\.1:\d`)
	pages := map[string]*dom.Node{}
	for name, b := range files {
		if port.Match(b) {
			t.Errorf("%s names a port of the lab that recorded it: %s", name, port.Find(b))
		}
		if path.Ext(name) != ".html" {
			continue
		}
		page, err := dom.Parse(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		pages[name] = page
	}
	for name, page := range pages {
		ids, headings := map[string]bool{}, 0
		for n := range page.Descendants() {
			if n.Type != dom.ElementNode {
				continue
			}
			switch n.Data {
			case "script", "style", "img", "iframe", "object", "form":
				t.Errorf("%s has a <%s>", name, n.Data)
			case "h1":
				headings++
			case "a", "link":
				leads(t, name, n, pages, files)
			}
			if id := attribute(n, "id"); id != "" {
				if ids[id] {
					t.Errorf("%s has two elements with the id %q", name, id)
				}
				ids[id] = true
			}
		}
		if headings != 1 {
			t.Errorf("%s has %d main headings; want one", name, headings)
		}
	}
}

func leads(t *testing.T, from string, n *dom.Node, pages map[string]*dom.Node, files map[string][]byte) {
	t.Helper()
	href := attribute(n, "href")
	u, err := url.Parse(href)
	if err != nil || href == "" {
		t.Errorf("%s: link %q: %v", from, href, err)
		return
	}
	switch {
	case u.Scheme == "https" && n.Data == "a", href == "data:,":
		return // elsewhere, and only if the reader goes there
	case u.Scheme != "" || u.Host != "":
		t.Errorf("%s: <%s> asks %s", from, n.Data, href)
		return
	}
	to := from
	if u.Path != "" {
		to = path.Join(path.Dir(from), u.Path)
	}
	if _, ok := files[to]; !ok {
		t.Errorf("%s links to %s, which is not there", from, href)
		return
	}
	if u.Fragment == "" {
		return
	}
	for n := range pages[to].Descendants() {
		if attribute(n, "id") == u.Fragment {
			return
		}
	}
	t.Errorf("%s links to %s, where nothing has that id", from, href)
}

func attribute(n *dom.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func TestExportReplacesAnEarlierOne(t *testing.T) {
	dir, lessons := t.TempDir(), allLessons(t)[:1]
	gone := lessons[0]
	gone.Name = "gone"
	exported(t, dir, append([]Lesson{gone}, lessons...))
	mine := filepath.Join(dir, "CNAME")
	if err := os.WriteFile(mine, []byte("docs.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	files := exported(t, dir, lessons)
	if _, ok := files["lessons/gone.html"]; ok {
		t.Error("the page of a lesson that is gone is still there")
	}
	if string(files["CNAME"]) != "docs.example\n" {
		t.Error("a file that no export wrote is gone")
	}
}

func TestExportSparesWhatItDidNotWrite(t *testing.T) {
	dir := t.TempDir()
	mine := filepath.Join(dir, "index.html")
	if err := os.WriteFile(mine, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := Export(t.Context(), dir, allLessons(t)[:1])
	if !errors.Is(err, ErrNoExport) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "index.html") {
		t.Errorf("error %v; want the folder and a file in it", err)
	}
	if b, err := os.ReadFile(mine); err != nil || string(b) != "mine" {
		t.Errorf("the file is now %q, %v", b, err)
	}

	// A mark that somebody else wrote reaches no file outside.
	inner := filepath.Join(dir, "inner")
	if err := os.Mkdir(inner, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(inner, exportMark), []byte("../index.html\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Export(t.Context(), inner, allLessons(t)[:1]); err == nil {
		t.Error("a mark that names a file outside was taken")
	}
	if b, err := os.ReadFile(mine); err != nil || string(b) != "mine" {
		t.Errorf("the file is now %q, %v", b, err)
	}
}
