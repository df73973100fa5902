// Package job is what the harness tells a tool that it starts.
package job

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// Job is a visit: the page, then calls of its API.
type Job struct {
	Origin string `json:"origin"`
	// CA is the file of the certificate that the site's is signed with.
	CA    string `json:"ca"`
	Calls int    `json:"calls"`
	// Page and Call are the headers of a navigation and of a script's fetch, in order; none
	// if the tool sends what it sends by itself.
	Page [][2]string `json:"page,omitempty"`
	Call [][2]string `json:"call,omitempty"`
	// Client is the file of the page's own client, for a tool that runs it.
	Client string `json:"client,omitempty"`
	// Tickets are to be got and spent as the page's client does.
	Tickets bool `json:"tickets,omitempty"`
}

// FromArgs reads the job from the command line.
func FromArgs() (j Job, roots *x509.CertPool, err error) {
	if len(os.Args) != 2 {
		return j, nil, errors.New("want one argument, a job in JSON")
	}
	if err = json.Unmarshal([]byte(os.Args[1]), &j); err != nil {
		return j, nil, err
	}
	pem, err := os.ReadFile(j.CA)
	if err != nil {
		return j, nil, err
	}
	roots = x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return j, nil, fmt.Errorf("%s: no certificate", j.CA)
	}
	return j, roots, nil
}

// Item is the address of the nth call.
func (j *Job) Item(n int) string { return fmt.Sprintf("%s/api/items/%d", j.Origin, n%200) }
