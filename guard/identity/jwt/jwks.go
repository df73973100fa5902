package jwt

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/go-jose/go-jose/v4"

	"github.com/moat-gateway/moat/guard/identity/internal/jws"
	"github.com/moat-gateway/moat/guard/identity/internal/principal"
)

const (
	maxKeys = 64
	// maxKeyID is the longest kid that a key may have.
	maxKeyID = 256
)

// key is one that tokens may be signed with.
type key struct {
	id         string   // kid, or ""
	algorithms []string // that it is good for
	public     any      // for jws.Verify
	print      [32]byte // of what it is
	gone       atomic.Bool
}

func (k *key) sameAs(other *key) bool {
	return k.id == other.id && k.print == other.print && slices.Equal(k.algorithms, other.algorithms)
}

func newKey(id string, public any) (*key, error) {
	algorithms, err := jws.Algorithms(public)
	if err != nil {
		return nil, err
	}
	k := &key{id: id, algorithms: algorithms, public: public}
	if secret, ok := public.([]byte); ok {
		k.print = sha256.Sum256(secret)
		return k, nil
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	k.print = sha256.Sum256(der)
	return k, nil
}

// secretKeys are the keys of an issuer that shares secrets. Each is long enough for all of the algorithms.
func secretKeys(secrets [][]byte, algorithms []string) ([]*key, error) {
	if len(secrets) > maxCandidates {
		return nil, fmt.Errorf("%d secrets, where %d are the most", len(secrets), maxCandidates)
	}
	var keys []*key
	for _, secret := range secrets {
		if bytes.Contains(secret, []byte("-----BEGIN")) {
			return nil, errors.New("the secret is PEM: a public key, or whoever knows it, would sign tokens; give it as JWKS")
		}
		k, err := newKey("", secret)
		if err != nil {
			return nil, fmt.Errorf("secret: %w", err)
		}
		for _, a := range algorithms {
			if !slices.Contains(k.algorithms, a) {
				return nil, fmt.Errorf("a secret of %d bytes is too short for %s, which wants as many as its hash has", len(secret), a)
			}
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// staticKeys reads a JWK Set or PEM from the configuration. There a private key is a fault, and
// so is a set without any key that can be used.
func staticKeys(text []byte) ([]*key, error) {
	read := readSet
	if bytes.Contains(text, []byte("-----BEGIN")) {
		read = readPEM
	}
	keys, faults, err := read(text)
	if err != nil {
		return nil, fmt.Errorf("JWKS: %w", err)
	}
	for _, f := range faults {
		if errors.Is(f, errPrivate) {
			return nil, fmt.Errorf("JWKS: %w", f)
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("JWKS: no key that can be used: %w", errors.Join(faults...))
	}
	return keys, nil
}

var errPrivate = errors.New("it is private or a secret; give the public one alone")

// readSet reads a JWK Set (RFC 7517 section 5). Keys that are weak, for another use or of an
// unknown kind are left out, each with its fault.
func readSet(text []byte) (keys []*key, faults []error, err error) {
	var set map[string]json.RawMessage
	if err = json.Unmarshal(text, &set); err != nil {
		return nil, nil, errors.New("no JWK Set: not a JSON object")
	}
	var list []json.RawMessage
	if err = json.Unmarshal(set["keys"], &list); err != nil || list == nil {
		return nil, nil, errors.New(`no JWK Set: it has no list "keys"`)
	}
	if len(list) > maxKeys {
		return nil, nil, fmt.Errorf("a JWK Set of %d keys, where %d are the most", len(list), maxKeys)
	}
	for i, raw := range list {
		k, fault := readKey(raw)
		if fault != nil {
			faults = append(faults, fmt.Errorf("key %d: %w", i+1, fault))
			continue
		}
		keys = append(keys, k)
	}
	return keys, faults, nil
}

// readKey reads one JWK.
func readKey(raw []byte) (*key, error) {
	members, err := principal.ParseClaims(raw)
	if err != nil {
		return nil, err
	}
	for _, secret := range []string{"k", "d", "p", "q", "dp", "dq", "qi", "priv"} {
		if _, has := members[secret]; has {
			return nil, errPrivate
		}
	}
	if use, has := members["use"]; has && use != "sig" {
		return nil, fmt.Errorf("its use is %s, not sig", shown(use))
	}
	if ops, has := members["key_ops"]; has && !slices.Contains(principal.Strings(ops), "verify") {
		return nil, errors.New("its key_ops have no verify")
	}
	var read jose.JSONWebKey
	if err = read.UnmarshalJSON(raw); err != nil {
		return nil, errors.New("not a public key that is known here")
	}
	if len(read.KeyID) > maxKeyID {
		return nil, fmt.Errorf("its kid is longer than %d bytes", maxKeyID)
	}
	k, err := newKey(read.KeyID, read.Key)
	if err != nil {
		return nil, err
	}
	if read.Algorithm != "" {
		if !slices.Contains(k.algorithms, read.Algorithm) {
			return nil, fmt.Errorf("its alg %s does not fit it", shown(read.Algorithm))
		}
		k.algorithms = []string{read.Algorithm}
	}
	return k, nil
}

// readPEM reads public keys, and those of certificates, whose issuer and dates are not
// looked at: the operator has chosen the file.
func readPEM(text []byte) (keys []*key, faults []error, err error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		public, fault := readBlock(block)
		if fault == nil {
			var k *key
			if k, fault = newKey("", public); fault == nil {
				keys = append(keys, k)
			}
		}
		if fault != nil {
			faults = append(faults, fmt.Errorf("%q: %w", block.Type, fault))
		}
		if len(keys)+len(faults) > maxKeys {
			return nil, nil, fmt.Errorf("more than %d keys", maxKeys)
		}
	}
	return keys, faults, nil
}

func readBlock(b *pem.Block) (crypto.PublicKey, error) {
	switch b.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(b.Bytes)
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(b.Bytes)
	case "CERTIFICATE":
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, err
		}
		return c.PublicKey, nil
	case "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY":
		return nil, errPrivate
	}
	return nil, errors.New("no public key")
}
