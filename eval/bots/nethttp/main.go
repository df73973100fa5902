// Command nethttp visits the site with Go's net/http.
package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"time"

	"github.com/moat-gateway/moat/eval/bots/job"
)

func main() {
	log.SetFlags(0)
	if err := visit(); err != nil {
		log.Fatal("nethttp: ", err)
	}
}

func visit() error {
	j, roots, err := job.FromArgs()
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
	}}
	get := func(url string, headers [][2]string) error {
		r, rErr := http.NewRequest(http.MethodGet, url, nil) //nolint:noctx // the client's timeout ends it
		if rErr != nil {
			return rErr
		}
		for _, h := range headers {
			r.Header.Set(h[0], h[1])
		}
		res, rErr := client.Do(r)
		if rErr != nil {
			return rErr
		}
		defer res.Body.Close() //nolint:errcheck // read to its end
		if _, rErr = io.Copy(io.Discard, res.Body); rErr == nil && res.StatusCode != http.StatusOK {
			rErr = fmt.Errorf("%s: %s", url, res.Status)
		}
		return rErr
	}
	if err = get(j.Origin+"/", j.Page); err != nil {
		return err
	}
	for n := range j.Calls {
		if err = get(j.Item(n), j.Call); err != nil {
			return err
		}
	}
	return nil
}
