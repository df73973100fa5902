package lab

import (
	"fmt"
	"net/url"
	"reflect"
	"strconv"
	"testing"
)

// FuzzBodyFields: what a body says does not depend on its content type if it is JSON, a
// form says what it was made of, and nothing breaks the reader.
func FuzzBodyFields(f *testing.F) {
	f.Add("application/json", "amount", "5", 5)
	f.Add("text/plain", "amount", `{"amount": 1}`, -1)
	f.Add("multipart/form-data; boundary=x", "a", "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--\r\n", 1_000_000_000)
	f.Add("multipart/form-data", "", "--", 0)
	f.Add("application/x-www-form-urlencoded", "a b&c", "1=2\n3", 9_007_199_254_740_993)
	f.Fuzz(func(t *testing.T, contentType, name, value string, amount int) {
		bodyFields(contentType, []byte(value))
		if got := bodyFields(contentType, fmt.Appendf(nil, `{"amount": %d, "note": %s}`, amount, strconv.QuoteToASCII("="))).Get("amount"); got != strconv.Itoa(amount) {
			t.Errorf("JSON as %q: %q; want %d", contentType, got, amount)
		}
		form := url.Values{name: {value, "x"}, "other": {strconv.Itoa(amount)}}
		if got := bodyFields("application/x-www-form-urlencoded", []byte(form.Encode())); !reflect.DeepEqual(got, form) {
			t.Errorf("form %q: %q", form, got)
		}
	})
}
