package principal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
)

// maxDepth is how deep claims may nest.
const maxDepth = 16

// ParseClaims reads a JSON object as claims. It refuses what two parsers could read
// differently: a member twice (RFC 8725 section 2.4), anything after the object, text that
// is not UTF-8. Numbers become int64 if they are one exactly, and float64 otherwise.
func ParseClaims(text []byte) (map[string]any, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	v, err := value(dec, 0)
	if err != nil {
		return nil, err
	}
	if _, err = dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the object")
	}
	claims, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("not an object")
	}
	if !bytes.Equal(bytes.ToValidUTF8(text, nil), text) {
		return nil, errors.New("not UTF-8")
	}
	return claims, nil
}

func value(dec *json.Decoder, depth int) (any, error) {
	t, err := dec.Token()
	if err != nil {
		return nil, errors.New("not JSON") // the decoder's own words repeat the text
	}
	switch t := t.(type) {
	case json.Delim:
		if depth == maxDepth {
			return nil, fmt.Errorf("nests deeper than %d", maxDepth)
		}
		if t == '{' {
			return object(dec, depth)
		}
		return array(dec, depth)
	case json.Number:
		return number(t)
	}
	return t, nil // string, bool, nil
}

func object(dec *json.Decoder, depth int) (any, error) {
	m := make(map[string]any)
	for dec.More() {
		k, err := dec.Token()
		name, ok := k.(string)
		if err != nil || !ok {
			return nil, errors.New("not JSON")
		}
		if _, twice := m[name]; twice {
			return nil, errors.New("a member stands there twice")
		}
		if m[name], err = value(dec, depth+1); err != nil {
			return nil, err
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, errors.New("not JSON")
	}
	return m, nil
}

func array(dec *json.Decoder, depth int) (any, error) {
	list := []any{}
	for dec.More() {
		v, err := value(dec, depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	if _, err := dec.Token(); err != nil {
		return nil, errors.New("not JSON")
	}
	return list, nil
}

func number(n json.Number) (any, error) {
	if i, err := n.Int64(); err == nil {
		return i, nil
	}
	f, err := n.Float64()
	if err != nil || math.IsInf(f, 0) {
		return nil, errors.New("a number is too large")
	}
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return int64(f), nil
	}
	return f, nil
}
