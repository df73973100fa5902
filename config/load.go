package config

import (
	"fmt"
	"io"
	"os"
	"reflect"
	"time"
)

// Options are what Parse may look at beside the file itself. The zero Options let it
// look at nothing: references and certificates are faults then.
type Options struct {
	// Getenv looks up an environment variable.
	Getenv func(name string) (value string, ok bool)
	// ReadFile reads a file that the configuration names.
	ReadFile func(name string) ([]byte, error)
	// Now is the time at which certificates must be valid; the zero Time stands for
	// the time of the call.
	Now time.Time
}

// Load reads the configuration file at path. If the file is at fault the error is of
// type Faults, and of what is returned only Files means something: what to watch for a mend.
func Load(path string) (*Loaded, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("config: %s %s", path, cannotRead(err))
	}
	return Parse(path, data, Machine())
}

// KeyFiles are the files with API keys that the configuration file at path names. Nothing else
// in it is judged, and no reference is looked up: who makes a key need not have its secrets.
func KeyFiles(path string) ([]KeyFile, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("config: %s %s", path, cannotRead(err))
	}
	d := &decoder{report: report{file: path, at: make(map[string]position)}}
	n := d.parse(data)
	if n == nil {
		return nil, d.faults
	}
	root := defaultOf[file]()
	d.root = &root
	d.value(n, reflect.ValueOf(d.root).Elem(), "", field{})
	var files []KeyFile
	for _, name := range keys(root.Auth) {
		if f := root.Auth[name].APIKey.File; f != "" {
			files = append(files, KeyFile{Source: name, Path: d.path(f)})
		}
	}
	return files, nil
}

// Machine are Options that look at this machine: its environment, its files, its clock.
func Machine() Options { return Options{Getenv: os.LookupEnv, ReadFile: readFile} }

// Parse reads the text of a configuration file. name is the file's path: it stands in
// faults, and paths in the file count from its directory. If the text is at fault the
// error is of type Faults, as for Load.
func Parse(name string, data []byte, o Options) (*Loaded, error) {
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	d := &decoder{report: report{file: name, at: make(map[string]position)}, opts: o, files: []string{name}}
	if n := d.parse(data); n != nil {
		root := defaultOf[file]()
		d.root = &root
		d.value(n, reflect.ValueOf(d.root).Elem(), "", field{block: "not a configuration, which is a block with version, upstreams, routes and others; moat init writes one to begin with"})
		l, err := d.compile()
		if err != nil {
			return &Loaded{Files: d.files}, err
		}
		l.text = data
		return l, nil
	}
	return &Loaded{Files: d.files}, d.faults
}

// readFile reads a file of at most maxTable bytes: a device or a log under a wrong name
// must not fill the memory.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name) //nolint:gosec // whoever writes the configuration says which files count.
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read.
	data, err := io.ReadAll(io.LimitReader(f, maxTable+1))
	if err == nil && len(data) > maxTable {
		err = fmt.Errorf("larger than %d bytes", maxTable)
	}
	return data, err
}
