package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A table of the whole internet has some 30 MB; nothing else that is named may be as large.
func TestTablesOfAddressesMayBeLarge(t *testing.T) {
	dir := t.TempDir()
	var table strings.Builder
	for i := range 60_000 {
		fmt.Fprintf(&table, "10.%d.%d.0\t10.%d.%d.255\t%d\tDE\tA system\n", i>>8, i&255, i>>8, i&255, 64500+i%10)
	}
	list := "AS64500\n" + strings.Repeat("192.0.2.1 # the same again, to make a long file\n", 30_000)
	load := func(table, list, keys string) error {
		t.Helper()
		for name, text := range map[string]string{"asns.tsv": table, "list.txt": list, "keys.json": keys, "moat.yaml": `version: 1
public_origins: [http://localhost:8080]
upstreams: {app: {url: http://127.0.0.1:3000}}
bots:
  lists: [{file: list.txt, score: 20}]
  asns: asns.tsv
  robots: {Agent: {agent: https://agent.example, keys: keys.json}}
routes: [{match: /, upstream: app, auth: public}]
`} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, err := Load(filepath.Join(dir, "moat.yaml"))
		return err
	}
	const keys = `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs"}]}`
	if table.Len() < maxFile || len(list) < maxFile {
		t.Fatal("the files are too small to show anything")
	}
	if err := load(table.String(), list, keys); err != nil {
		t.Fatal(err)
	}
	for want, err := range map[string]error{
		`moat.yaml:6:9: bots.asns: "asns.tsv": line 60001: "x"`:             load(table.String()+"x\n", list, keys),
		`bots.lists[0].file: "list.txt": line 30002: "192.0.2"`:             load(table.String(), list+"192.0.2\n", keys),
		`bots.robots.Agent.keys: "keys.json": cannot be read: larger than`:  load(table.String(), list, keys+strings.Repeat(" ", maxFile)),
		`bots.robots.Agent: keys: a key is private; give the public one al`: load(table.String(), list, strings.Replace(keys, `"x"`, `"d":"AA","x"`, 1)),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
}
