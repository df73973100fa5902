package browser

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Field is one header field. In JSON it is a pair: ["Name", "value"].
type Field struct{ Name, Value string }

// MarshalJSON writes the field as a pair.
func (f Field) MarshalJSON() ([]byte, error) { return json.Marshal([2]string{f.Name, f.Value}) }

// UnmarshalJSON reads the pair.
func (f *Field) UnmarshalJSON(b []byte) error {
	var pair []string
	if err := json.Unmarshal(b, &pair); err != nil || len(pair) != 2 {
		return fmt.Errorf(`a header field is a pair, ["Name", "value"], not %.60s`, b)
	}
	f.Name, f.Value = pair[0], pair[1]
	return nil
}

// Header is a list of header fields as they stand on the wire: order and repetition are
// kept, because browsers tell "a, b" in one field from two fields in few places only.
type Header []Field

// Values returns the values of all fields of that name, in order.
func (h Header) Values(name string) []string {
	var all []string
	for _, f := range h {
		if strings.EqualFold(f.Name, name) {
			all = append(all, f.Value)
		}
	}
	return all
}

// Get returns the fields' values joined by ", ", as the Fetch standard's "get" does
// (https://fetch.spec.whatwg.org/#concept-header-list-get). ok is false if there is none.
func (h Header) Get(name string) (value string, ok bool) {
	all := h.Values(name)
	return strings.Join(all, ", "), len(all) > 0
}

// Value is Get for those who take a missing field for an empty one.
func (h Header) Value(name string) string {
	v, _ := h.Get(name)
	return v
}

// Has reports whether there is a field of that name.
func (h Header) Has(name string) bool { return len(h.Values(name)) > 0 }

func (h *Header) add(name, value string) { *h = append(*h, Field{name, value}) }

// without returns a copy that lacks the fields for which gone is true.
func (h Header) without(gone func(Field) bool) Header {
	var rest Header
	for _, f := range h {
		if !gone(f) {
			rest = append(rest, f)
		}
	}
	return rest
}

// Message is a request as it leaves the browser.
type Message struct {
	Method string `json:"method"`
	URL    string `json:"url"`
	// Header has what the page set and what the browser itself sets. What says nothing
	// about security (Accept, User-Agent and so on, unless the page set it) is left out.
	Header Header `json:"headers,omitempty"`
	// Preflight is set on the browser's own question, which no backend should execute.
	Preflight bool `json:"preflight,omitempty"`
	// Body is what the page sent along; the browser's own requests have none.
	Body *Body `json:"body,omitempty"`
}

// Answer is what comes back for a Message.
type Answer struct {
	// Status is 0 if no answer came; then Failure says why.
	Status int    `json:"status,omitempty"`
	Header Header `json:"headers,omitempty"`
	// Failure is why there is no answer: a net error as Chromium names it, such as
	// "net::ERR_CONNECTION_REFUSED" or "net::ERR_CERT_AUTHORITY_INVALID".
	Failure string `json:"failure,omitempty"`
	// Body is the beginning of the body. Only sniffing for ORB looks at it.
	Body string `json:"body,omitempty"`
}

// Server answers the requests that leave the browser.
type Server func(Message) Answer
