package lab

import (
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// jwtLife is how long a token is good.
const jwtLife = 5 * time.Minute

// serveJWKS publishes the issuer's public key. It is no secret, and so is no token that uses
// these bytes for one. The ledger says nothing of it: what counts is what somebody does with it.
func (v *visitor) serveJWKS(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/jwk-set+json")
	_, _ = w.Write(v.keys.jwks())
}

func (v *visitor) issueJWT(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	token := v.keys.sign("ES256", nil, map[string]any{
		"iss": tokenIssuer, "aud": tokenAudience, "sub": "alice", "scope": "read", "iat": now.Unix(), "exp": now.Add(jwtLife).Unix(),
	})
	v.ran(r, "issued a token for alice")
	writeJSON(w, http.StatusOK, map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": int(jwtLife.Seconds())})
}

// readByJWT reads the account of whom the token is for, by one of the ways to check one.
func (v *visitor) readByJWT(w http.ResponseWriter, r *http.Request) {
	text, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		w.Header().Set("WWW-Authenticate", "Bearer")
		refuse(w, http.StatusUnauthorized, "no token: it has to be in the header Authorization, as Bearer …")
		return
	}
	var (
		subject string
		err     error
	)
	switch check := r.PathValue("check"); check {
	case "strict":
		subject, err = v.keys.checkStrictly(text, time.Now())
	case "none", "confused", "embedded", "unchecked", "expired":
		subject, err = v.keys.checkNaively(check, text, time.Now())
	default:
		http.NotFound(w, r)
		return
	}
	books := v.booksNow()
	balance, known := map[string]int{"alice": books.Alice, "mallory": books.Mallory}[subject]
	switch {
	case err != nil:
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		refuse(w, http.StatusUnauthorized, err.Error())
	case !known:
		refuse(w, http.StatusForbidden, fmt.Sprintf("%.40q has no account", subject))
	default:
		v.ran(r, "read the account of "+subject+", as the token says")
		writeJSON(w, http.StatusOK, map[string]any{"user": subject, "balance": balance})
	}
}

// checkStrictly is how it is done: the algorithm, the key, the issuer and the audience are
// known before the token is looked at.
func (k *keys) checkStrictly(text string, now time.Time) (subject string, err error) {
	token, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return "", err
	}
	var claims jwt.Claims
	if err := token.Claims(&k.signer.PublicKey, &claims); err != nil {
		return "", err
	}
	if claims.Expiry == nil {
		return "", errors.New("the token has no exp")
	}
	return claims.Subject, claims.ValidateWithLeeway(jwt.Expected{Issuer: tokenIssuer, AnyAudience: jwt.Audience{tokenAudience}, Time: now}, 0)
}

// checkNaively does it with one hole each. Each was one in several libraries.
func (k *keys) checkNaively(hole, text string, now time.Time) (subject string, err error) {
	head, rest, _ := strings.Cut(text, ".")
	body, signature, ok := strings.Cut(rest, ".")
	var (
		header struct {
			Alg string          `json:"alg"`
			JWK json.RawMessage `json:"jwk"`
		}
		claims struct {
			Subject string  `json:"sub"`
			Expiry  float64 `json:"exp"`
		}
	)
	if !ok || decode(head, &header) != nil || decode(body, &claims) != nil {
		return "", errors.New("not a JWT: three parts, and JSON in the first two")
	}
	proof, err := base64.RawURLEncoding.DecodeString(signature)
	if err != nil {
		return "", errors.New("the signature is not base64url")
	}
	signed := []byte(head + "." + body)
	key := &k.signer.PublicKey
	if hole == "embedded" && header.JWK != nil { // the token brings the key that it is checked with
		var brought jose.JSONWebKey
		if brought.UnmarshalJSON(header.JWK) != nil {
			return "", errors.New("jwk: not a key")
		}
		if key, ok = brought.Key.(*ecdsa.PublicKey); !ok {
			return "", errors.New("jwk: not a public key of P-256")
		}
	}
	switch {
	case hole == "unchecked": // who reads the payload, reads no further
	case hole == "none" && strings.EqualFold(header.Alg, "none"): // then it needs no signature
	case hole == "confused" && header.Alg == "HS256": // the token says what the key is used for
		mac := hmac.New(sha256.New, k.jwks())
		mac.Write(signed)
		if !hmac.Equal(mac.Sum(nil), proof) {
			return "", errors.New("the HS256 signature is wrong")
		}
	case header.Alg != "ES256":
		return "", fmt.Errorf("alg: %.20q: not ES256", header.Alg)
	default:
		digest := sha256.Sum256(signed)
		if len(proof) != 64 || !ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(proof[:32]), new(big.Int).SetBytes(proof[32:])) {
			return "", errors.New("the ES256 signature is wrong")
		}
	}
	if hole != "expired" && float64(now.Unix()) >= claims.Expiry {
		return "", errors.New("the token has expired")
	}
	return claims.Subject, nil
}

func decode(part string, to any) error {
	b, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, to)
}
