// Command tlsclient visits the site with a library that imitates Chrome's TLS and HTTP/2.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"slices"
	"strconv"
	"strings"

	fhttp "github.com/bogdanfinn/fhttp"
	"github.com/bogdanfinn/tls-client"
	"github.com/bogdanfinn/tls-client/profiles"

	"github.com/moat-gateway/moat/eval/bots/job"
)

func main() {
	log.SetFlags(0)
	if err := visit(); err != nil {
		log.Fatal("tlsclient: ", err)
	}
}

func visit() error {
	j, roots, err := job.FromArgs()
	if err != nil {
		return err
	}
	client, err := tls_client.NewHttpClient(tls_client.NewNoopLogger(), tls_client.WithTimeoutSeconds(60),
		tls_client.WithClientProfile(profiles.Chrome_133), tls_client.WithTransportOptions(&tls_client.TransportOptions{RootCAs: roots}))
	if err != nil {
		return err
	}
	send := func(method, url string, headers [][2]string, body string) ([]byte, error) {
		r, rErr := fhttp.NewRequest(method, url, strings.NewReader(body))
		if rErr != nil {
			return nil, rErr
		}
		for _, h := range headers {
			r.Header.Set(h[0], h[1])
			r.Header[fhttp.HeaderOrderKey] = append(r.Header[fhttp.HeaderOrderKey], h[0])
		}
		res, rErr := client.Do(r)
		if rErr != nil {
			return nil, rErr
		}
		defer res.Body.Close() //nolint:errcheck // read to its end
		text, rErr := io.ReadAll(res.Body)
		if rErr == nil && res.StatusCode != http.StatusOK {
			rErr = fmt.Errorf("%s: %s", url, res.Status)
		}
		return text, rErr
	}
	tickets := session{ask: func(document map[string]string) ([]byte, error) {
		text, aErr := json.Marshal(document)
		if aErr != nil {
			return nil, aErr
		}
		// As Chrome sends a fetch with a text for its body.
		headers := [][2]string{{"content-length", strconv.Itoa(len(text))}}
		for _, h := range j.Call {
			switch headers = append(headers, h); h[0] {
			case "sec-ch-ua":
				headers = append(headers, [2]string{"content-type", "text/plain;charset=UTF-8"})
			case "accept":
				headers = append(headers, [2]string{"origin", j.Origin})
			}
		}
		return send(http.MethodPost, j.Origin+"/.moat/tickets", headers, string(text))
	}}
	if _, err = send(http.MethodGet, j.Origin+"/", j.Page, ""); err != nil {
		return err
	}
	for n := range j.Calls {
		headers := j.Call
		if j.Tickets {
			token, tErr := tickets.token(strings.TrimPrefix(j.Item(n), j.Origin))
			if tErr != nil {
				return tErr
			}
			headers = slices.Insert(slices.Clone(j.Call), 3, [2]string{"moat-ticket", token})
		}
		if _, err = send(http.MethodGet, j.Item(n), headers, ""); err != nil {
			return err
		}
	}
	return nil
}
