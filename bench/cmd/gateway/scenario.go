package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// scenarioArgument makes this program write the moat.yaml of one of the harness's scenarios,
// and become the moat that serves it.
const scenarioArgument = "-serve-scenario"

// scenarioWords are what the harness fills in, after the program moat itself.
const scenarioWords = "{addr} {backend} {cors} {ratelimit} {keys} {issuer} {dir} {jwt}"

// serveScenario takes scenarioWords. The last one is empty where no token is asked for.
func serveScenario(moat string, words []string) error {
	if len(words) != len(strings.Fields(scenarioWords)) {
		return fmt.Errorf("%s: %d words; want %s", scenarioArgument, len(words), scenarioWords)
	}
	addr, backend, cors, limited, keys, issuer, dir, algorithm := words[0], words[1], words[2], words[3], words[4], words[5], words[6], words[7]
	route := "match: /, upstream: app, browserless: allow"
	var more []string
	if cors == "true" {
		route += `, origins: ["https://app.example.com"], cors: {credentials: true}`
	}
	if limited == "true" {
		more = append(more, "rate_limits: {each: 1000000/s}")
		route += ", rate_limits: each"
	}
	switch algorithm {
	case "":
		route += ", auth: public"
	case "HS256", "RS256", "ES256":
		verified := fmt.Sprintf("jwks_file: %q", filepath.Join(keys, "jwks.json"))
		if algorithm == "HS256" {
			verified = fmt.Sprintf("secrets: %q", "${file:"+filepath.Join(keys, "hs256.key")+"}")
		}
		more = append(more, fmt.Sprintf("auth: {issuer: {jwt: {issuer: %q, audience: bench, algorithms: %s, %s}}}", issuer, algorithm, verified))
		route += ", auth: issuer, authorize: authenticated"
	default:
		return fmt.Errorf("%s: algorithm %q: unknown", scenarioArgument, algorithm)
	}
	lines := append([]string{
		"version: 1", "listen: " + addr, `admin: "off"`, fmt.Sprintf("public_origins: [%q]", "http://"+addr),
		fmt.Sprintf("upstreams: {app: {url: %q}}", "http://"+backend),
	}, append(more, "routes: [{"+route+"}]", "")...)
	file := filepath.Join(dir, "moat.yaml")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil { //nolint:gosec // where the harness has its scratch directory.
		return err
	}
	err := syscall.Exec(moat, []string{moat, "run", "--config", file}, os.Environ()) //nolint:gosec // what was built here.
	return errors.Join(fmt.Errorf("run %s", moat), err)
}
