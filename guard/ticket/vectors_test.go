package ticket

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"os"
	"testing"
)

// The vectors are made by another implementation of the format (client/test).
func vectors(t *testing.T, name string, v any) {
	t.Helper()
	text, err := os.ReadFile("../../vectors/ticket/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err = json.Unmarshal(text, v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var userAgents = map[byte]string{1: "Mozilla/5.0 Chrome/156.0 Safari/537.36", 2: "Mozilla/5.0 Firefox/153.0", 3: "Mozilla/5.0 Version/26.0 Safari/605.1.15", 255: "curl/8.0"}

func TestTicketVectors(t *testing.T) {
	var cases []struct {
		Name, Secret, Lineage, Visitor, Origin, Network, Ticket, Key string
		Class, Uses, Flags, Family                                   byte
		Expires                                                      uint32
		Number                                                       uint64
	}
	vectors(t, "tickets.json", &cases)
	for _, c := range cases {
		prk, err := extract([][]byte{unhex(t, c.Secret)})
		if err != nil {
			t.Fatal(err)
		}
		ks := newKeys(c.Class, Lineage(unhex(t, c.Lineage)), prk)
		f := fields{class: c.Class, kid: ks.roots[0].kid, expires: c.Expires, visitor: Visitor(unhex(t, c.Visitor)), number: c.Number, uses: c.Uses, flags: c.Flags}
		if c.Origin != "" {
			f.origin = originOf(c.Origin)
		}
		if c.Network != "" {
			prefix := unhex(t, c.Network)
			client, _ := netip.AddrFromSlice(append(prefix, make([]byte, map[int]int{3: 1, 6: 10}[len(prefix)])...))
			f.bind = BindTo(client, userAgents[c.Family])
		}
		f.bind[3] = c.Family
		e := ks.at(&ks.roots[0], c.Expires/epochSeconds)
		ticket := f.seal(e)
		m, _ := e.macs.Get().(*mac)
		m.keyOf(e, &ticket)
		if got := encoding.EncodeToString(ticket[:]); got != c.Ticket || hex.EncodeToString(m.key[:]) != c.Key {
			t.Errorf("%s: %s %x, want %s %s", c.Name, got, m.key, c.Ticket, c.Key)
		}
		if family(userAgents[c.Family]) != c.Family && c.Family != 0 {
			t.Errorf("%s: family %d", c.Name, family(userAgents[c.Family]))
		}
	}
}

// keysThatMade are the keys that have made the ticket.
func keysThatMade(t *testing.T, text string) *epochKeys {
	t.Helper()
	var cases []struct {
		Secret, Lineage, Ticket string
		Class                   byte
		Expires                 uint32
	}
	vectors(t, "tickets.json", &cases)
	for _, c := range cases {
		if c.Ticket == text {
			prk, err := extract([][]byte{unhex(t, c.Secret)})
			if err != nil {
				t.Fatal(err)
			}
			ks := newKeys(c.Class, Lineage(unhex(t, c.Lineage)), prk)
			return ks.at(&ks.roots[0], c.Expires/epochSeconds)
		}
	}
	t.Fatalf("%s is not among the tickets", text)
	return nil
}

func TestCallVectors(t *testing.T) {
	var cases []struct {
		Ticket, Method, Target, Body, Token string
		Index                               byte
		Stream                              bool
	}
	vectors(t, "calls.json", &cases)
	for _, c := range cases {
		p := proof{label: labelCall, method: c.Method, target: c.Target}
		if !p.parse(c.Token) || p.index != c.Index {
			t.Errorf("%s is not parsed", c.Token)
			continue
		}
		want := byte(bodyNone)
		switch body := unhex(t, c.Body); {
		case c.Stream:
			want = bodyStreamed
		case len(body) > 0:
			want = bodyHashed
			if p.digest != sha256.Sum256(body) {
				t.Errorf("%s: digest %x", c.Token, p.digest)
			}
		}
		if p.body != want || !p.fits(keysThatMade(t, c.Ticket)) {
			t.Errorf("%s %s: body %d, want %d, or the proof does not fit", c.Method, c.Token, p.body, want)
		}
	}
}

func TestRenewalVectors(t *testing.T) {
	var cases []struct{ Ticket, Proof string }
	vectors(t, "renewals.json", &cases)
	for _, c := range cases {
		p := proof{label: labelRenew}
		if !decode(p.ticket[:], c.Ticket) || !decode(p.mac[:], c.Proof) || !p.fits(keysThatMade(t, c.Ticket)) {
			t.Errorf("%s does not fit", c.Proof)
		}
	}
}
