package bot

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/dunglas/httpsfv"
)

// Web Bot Auth is RFC 9421 in a profile of its own
// (https://datatracker.ietf.org/doc/draft-ietf-webbotauth-httpsig-protocol/). Of RFC 9421 only what
// such signatures use is here: one algorithm, the components of a request's head, and the
// parameters sf, bs, req and tr of none of them.

const (
	webBotAuth = "web-bot-auth"
	// maxSignatureAge is how long after it was made a signature is taken, whatever it says itself:
	// it is as long as the memory of nonces. maxSkew is how far ahead a robot's clock may be.
	maxSignatureAge = time.Hour
	maxSkew         = time.Minute
	// maxSignatureBytes bounds each of the three fields, and maxComponents what one covers.
	maxSignatureBytes = 4 << 10
	maxComponents     = 32
	maxNonces         = 1 << 16
)

// errUnsupported is the fault of this verifier, not of the signature.
var errUnsupported = errors.New("is not supported here")

// signature is a request's signature as far as it can be read without a key.
type signature struct {
	input httpsfv.InnerList
	bytes []byte

	keyID, nonce     string
	created, expires time.Time
}

// signed says what a request's signature proves. A signature for another purpose, or of a robot that
// is not known here, is no claim.
func (r *Robots) signed(ctx context.Context, req *http.Request, secure bool, now time.Time) Claim {
	input, err := dictionary(req.Header, "Signature-Input")
	label := ""
	if err == nil {
		if label = taggedLabel(input); label == "" {
			return Claim{}
		}
	}
	a := r.agentOf(req.Header, input, label, now)
	if a == nil {
		return Claim{}
	}
	claim := Claim{Robot: a.robot, Signed: true, Proof: Refuted}
	if err == nil {
		err = r.check(ctx, a, req, label, input, secure, now)
	}
	switch {
	case err == nil:
		claim.Proof, claim.Why = Verified, "its request is signed with a key of "+a.url
		return claim
	case errors.Is(err, errUnsupported), errors.Is(err, errNoKeys), errors.Is(err, errManyNonces):
		claim.Proof = Unverified
	}
	claim.Why = err.Error()
	return claim
}

// check goes through what a signature must hold to, the cheap things first.
func (r *Robots) check(ctx context.Context, a *agent, req *http.Request, label string, input *httpsfv.Dictionary, secure bool, now time.Time) error {
	s, err := readSignature(req.Header, label, input)
	if err != nil {
		return err
	}
	until := s.created.Add(maxSignatureAge)
	if s.expires.Before(until) {
		until = s.expires
	}
	switch {
	case s.created.After(now.Add(maxSkew)):
		return errors.New("it was made in the future")
	case !now.Before(until):
		return fmt.Errorf("it has expired; it holds until expires, and %s at most", maxSignatureAge)
	}
	key, err := r.key(ctx, a, s.keyID, now)
	if err != nil {
		return err
	}
	base, err := signatureBase(req, secure, s.input)
	if err != nil {
		return err
	}
	if !ed25519.Verify(key, []byte(base), s.bytes) {
		return errors.New("it is not one of that key for this request")
	}
	// Last, so that only the robot itself can fill the memory.
	return r.nonces.spend(s.keyID, s.nonce, until, now)
}

// dictionary reads a field as one of structured fields.
func dictionary(h http.Header, name string) (*httpsfv.Dictionary, error) {
	size := 0
	for _, line := range h[name] {
		size += len(line)
	}
	if size > maxSignatureBytes {
		return nil, fmt.Errorf("%s is longer than %d bytes", name, maxSignatureBytes)
	}
	d, err := httpsfv.UnmarshalDictionary(h[name])
	if err != nil {
		return nil, fmt.Errorf("%s is no dictionary of structured fields", name)
	}
	return d, nil
}

// taggedLabel is the label of the first signature that is meant for this.
func taggedLabel(input *httpsfv.Dictionary) string {
	for _, label := range input.Names() {
		member, _ := input.Get(label)
		if list, ok := member.(httpsfv.InnerList); ok {
			if tag, _ := list.Params.Get("tag"); tag == webBotAuth {
				return label
			}
		}
	}
	return ""
}

// agentOf is the known robot that a signature claims to be of: the one that Signature-Agent names,
// or, since early signers send none, the one whose key it names.
func (r *Robots) agentOf(h http.Header, input *httpsfv.Dictionary, label string, now time.Time) *agent {
	if h["Signature-Agent"] != nil {
		for _, u := range signatureAgents(h, label) {
			if at, err := agentURL(u); err == nil && r.agents[at] != nil {
				return r.agents[at]
			}
		}
		return nil
	}
	if input == nil {
		return nil
	}
	member, _ := input.Get(label)
	list, _ := member.(httpsfv.InnerList)
	if list.Params == nil {
		return nil
	}
	id, _ := list.Params.Get("keyid")
	for _, a := range r.agents {
		if s := a.keys.Load(); s != nil && s.usable(now) && s.keys[text(id)] != nil {
			return a
		}
	}
	return nil
}

// signatureAgents are the URLs in Signature-Agent that a signature may mean: the member of its label,
// then any other. Before it became a dictionary it was a string, and there are robots that send the
// bare URL.
func signatureAgents(h http.Header, label string) (urls []string) {
	if item, err := httpsfv.UnmarshalItem(h["Signature-Agent"]); err == nil && text(item.Value) != "" {
		return []string{text(item.Value)}
	}
	if line := strings.TrimSpace(h["Signature-Agent"][0]); strings.HasPrefix(line, "https://") {
		return []string{line}
	}
	d, err := dictionary(h, "Signature-Agent")
	if err != nil {
		return nil
	}
	for i, name := range d.Names() {
		member, _ := d.Get(name)
		item, _ := member.(httpsfv.Item)
		if u := text(item.Value); name == label {
			urls = append([]string{u}, urls...)
		} else if i < maxComponents {
			urls = append(urls, u)
		}
	}
	return urls
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

// readSignature reads the signature of a label and what it says of itself.
func readSignature(h http.Header, label string, input *httpsfv.Dictionary) (s signature, err error) {
	member, _ := input.Get(label)
	s.input, _ = member.(httpsfv.InnerList) // taggedLabel has looked
	signatures, err := dictionary(h, "Signature")
	if err != nil {
		return s, err
	}
	member, _ = signatures.Get(label)
	item, _ := member.(httpsfv.Item)
	if s.bytes, _ = item.Value.([]byte); len(s.bytes) != ed25519.SignatureSize {
		return s, fmt.Errorf("the field Signature has no %d bytes for the label %s", ed25519.SignatureSize, label)
	}
	get := func(name string) any {
		v, _ := s.input.Params.Get(name)
		return v
	}
	created, ok := get("created").(int64)
	expires, ok2 := get("expires").(int64)
	s.keyID, s.nonce = text(get("keyid")), text(get("nonce"))
	switch alg := get("alg"); {
	case !ok || !ok2 || s.keyID == "":
		return s, errors.New("it lacks created, expires or keyid")
	case alg != nil && alg != "ed25519":
		return s, fmt.Errorf("its algorithm %w: only ed25519 is", errUnsupported)
	case expires <= created:
		return s, errors.New("it expires before it was made")
	}
	s.created, s.expires = time.Unix(created, 0), time.Unix(expires, 0)
	return s, s.covers(h)
}

// covers wants that a signature cannot be taken to another site, nor be given another name.
func (s *signature) covers(h http.Header) error {
	target, agent := false, h["Signature-Agent"] == nil
	if len(s.input.Items) > maxComponents {
		return fmt.Errorf("it covers more than %d components", maxComponents)
	}
	for _, c := range s.input.Items {
		switch name := text(c.Value); name {
		case "@authority", "@target-uri":
			target = true
		case "signature-agent":
			agent = true
		}
	}
	switch {
	case !target:
		return errors.New("it covers neither @authority nor @target-uri, so it could be for any site")
	case !agent:
		return errors.New("it does not cover Signature-Agent")
	}
	return nil
}

// signatureBase is what is signed (RFC 9421 section 2.5).
func signatureBase(req *http.Request, secure bool, input httpsfv.InnerList) (string, error) {
	var b strings.Builder
	seen := make(map[string]bool, len(input.Items))
	for _, c := range input.Items {
		id, err := httpsfv.Marshal(c)
		if err != nil || seen[id] {
			return "", errors.New("it covers a component twice, or one that is malformed")
		}
		seen[id] = true
		value, err := component(req, secure, c)
		if err != nil {
			return "", fmt.Errorf("the component %s %w", id, err)
		}
		b.WriteString(id + ": " + value + "\n")
	}
	params, err := httpsfv.Marshal(input)
	if err != nil {
		return "", errors.New("its parameters are malformed")
	}
	return b.String() + `"@signature-params": ` + params, nil
}

var errMissing = errors.New("is not in the request")

// component is the value of one (RFC 9421 sections 2.1 and 2.2).
func component(req *http.Request, secure bool, c httpsfv.Item) (string, error) {
	name, _ := c.Value.(string)
	key, keyed := c.Params.Get("key")
	if len(c.Params.Names()) > 1 || len(c.Params.Names()) == 1 && !keyed || keyed && strings.HasPrefix(name, "@") {
		return "", errUnsupported
	}
	scheme := "http"
	if secure {
		scheme = "https"
	}
	path, query, asked := strings.Cut(req.RequestURI, "?")
	if !strings.HasPrefix(path, "/") { // the absolute form
		path, query, asked = cmp.Or(req.URL.EscapedPath(), "/"), req.URL.RawQuery, req.URL.RawQuery != "" || req.URL.ForceQuery
	}
	if asked {
		query = "?" + query
	}
	switch name {
	case "@method":
		return req.Method, nil
	case "@authority":
		return authority(req.Host, scheme), nil
	case "@scheme":
		return scheme, nil
	case "@path":
		return path, nil
	case "@query":
		return cmp.Or(query, "?"), nil
	case "@target-uri":
		return scheme + "://" + authority(req.Host, scheme) + path + query, nil
	case "@request-target":
		return req.RequestURI, nil
	case "host":
		return req.Host, nil
	}
	if name == "" || name[0] == '@' || strings.ToLower(name) != name {
		return "", errUnsupported
	}
	lines := req.Header[http.CanonicalHeaderKey(name)]
	if lines == nil {
		return "", errMissing
	}
	if keyed {
		return dictionaryMember(req.Header, http.CanonicalHeaderKey(name), text(key))
	}
	trimmed := make([]string, len(lines))
	for i, line := range lines {
		trimmed[i] = strings.Trim(line, " \t")
	}
	return strings.Join(trimmed, ", "), nil
}

// dictionaryMember is one member of a field (RFC 9421 section 2.1.2).
func dictionaryMember(h http.Header, name, key string) (string, error) {
	d, err := dictionary(h, name)
	if err != nil {
		return "", errMissing
	}
	switch member, _ := d.Get(key); m := member.(type) {
	case httpsfv.Item:
		return httpsfv.Marshal(m)
	case httpsfv.InnerList:
		return httpsfv.Marshal(m)
	}
	return "", errMissing
}

// authority is a host in the form of RFC 9421 section 2.2.3: lower case, without the scheme's own port.
func authority(host, scheme string) string {
	host = strings.ToLower(host)
	u := url.URL{Host: host}
	if port := u.Port(); scheme == "https" && port == "443" || scheme == "http" && port == "80" {
		return strings.TrimSuffix(host, ":"+port)
	}
	return host
}

// nonces are those that were spent, each until its signature expires.
type nonces struct {
	mu    sync.Mutex
	until map[[16]byte]time.Time
	swept time.Time
}

var errManyNonces = errors.New("more nonces are in use than are remembered here")

// spend lets a nonce count once. A signature without one can be used again until it expires: robots
// sign many requests of one second alike, and a copy cannot be told from them.
//
// A full memory fails closed: what could have been used before proves nothing. Only the robots
// themselves can fill it.
func (n *nonces) spend(keyID, nonce string, until, now time.Time) error {
	if nonce == "" {
		return nil
	}
	sum := sha256.Sum256([]byte(keyID + "\x00" + nonce))
	id := [16]byte(sum[:])
	n.mu.Lock()
	defer n.mu.Unlock()
	if before, ok := n.until[id]; ok && now.Before(before) {
		return errors.New("its nonce was used before")
	}
	if len(n.until) >= maxNonces && now.Sub(n.swept) >= time.Second {
		n.swept = now
		for one, end := range n.until {
			if !now.Before(end) {
				delete(n.until, one)
			}
		}
	}
	if len(n.until) >= maxNonces {
		return errManyNonces
	}
	n.until[id] = until
	return nil
}
