package config

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
)

var (
	references = regexp.MustCompile(`\$\{[^}]*\}`)
	variable   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// expand replaces each ${env:NAME} and ${file:PATH} in a scalar. What they stand for is
// not looked into again, and is never told. The values are those of the references alone.
func (d *decoder) expand(s, path string) (expanded string, values []string, ok bool) {
	var b strings.Builder
	ok = true
	for {
		before, rest, found := strings.Cut(s, "${")
		b.WriteString(before)
		if !found {
			return b.String(), values, ok
		}
		ref, after, closed := strings.Cut(rest, "}")
		value, reason := d.resolve(ref, closed)
		if reason != "" {
			d.fault(path, "", reason)
			ok = false
		}
		b.WriteString(value)
		values = append(values, value)
		s = after
	}
}

func (d *decoder) resolve(ref string, closed bool) (value, reason string) {
	kind, name, _ := strings.Cut(ref, ":")
	switch {
	case !closed, kind != "env" && kind != "file", name == "":
		return "", "not a reference; write ${env:NAME} or ${file:PATH}"
	case kind == "env" && !variable.MatchString(name):
		return "", "not the name of an environment variable"
	case kind == "file":
		b, err := d.read(name)
		if err != nil {
			return "", fmt.Sprintf("the file %s %s", name, cannotRead(err))
		}
		return strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"), ""
	case d.opts.Getenv == nil:
		return "", "there are no environment variables here"
	}
	value, ok := d.opts.Getenv(name)
	if !ok {
		return "", fmt.Sprintf("the environment variable %s is not set; set it where moat is started, or write ${file:PATH}", name)
	}
	return value, ""
}

// errNoFiles is that of Options without ReadFile.
var errNoFiles = errors.New("no file can be read here")

// read reads a file that the configuration names. Its path counts from the
// configuration's own directory.
func (d *decoder) read(name string) ([]byte, error) {
	data, err := d.readTable(name)
	if err == nil && len(data) > maxFile {
		return nil, fmt.Errorf("larger than %d bytes", maxFile)
	}
	return data, err
}

// readTable reads a file that may be large: a list, or a table of the whole internet.
func (d *decoder) readTable(name string) ([]byte, error) {
	if d.opts.ReadFile == nil {
		return nil, errNoFiles
	}
	name = d.path(name)
	d.files = append(d.files, name)
	return d.opts.ReadFile(name)
}

// path is a path as this machine has it: those in the file count from its directory.
func (d *decoder) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(d.file), name)
}

// cannotRead says why a file could not be read.
func cannotRead(err error) string {
	var p *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "does not exist"
	case errors.As(err, &p):
		return "cannot be read: " + p.Err.Error()
	}
	return "cannot be read: " + err.Error()
}
