package body

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

func TestJSON(t *testing.T) {
	pass := func(text string) {
		t.Helper()
		if f := (JSON{}).Check([]byte(text)); f != nil {
			t.Errorf("%.60q: %+v", text, *f)
		}
	}
	refuse := func(text, pointer, detail string) {
		t.Helper()
		f := JSON{}.Check([]byte(text))
		if f == nil || f.Pointer != pointer || !strings.Contains(f.Detail, detail) {
			t.Errorf("%.60q: %+v, want %s %s", text, f, pointer, detail)
		}
	}
	for _, text := range []string{
		`0`, ` null `, `"x"`, `[]`, `{}`, `[1,2,{"a":[true,false]}]`, `{"a":{"a":1},"b":{"a":1}}`, "\t{\r\n\"a\" : 1 }\n", `-0.5e-10`, `"\u0041\ud83d\ude00"`,
		`{"":{"":0}}`, `"` + "\u2028\U0001F600\uFFFD" + `"`, `1e308`, `0e999`, `0e-99999`, `123456789012345678901234567890`, strings.Repeat("[", 32) + strings.Repeat("]", 32),
	} {
		pass(text)
	}
	refuse(``, "#", "ends too early")
	refuse(`{"a":1`, "#/a", "ends too early")
	refuse(`{"a":1} {"a":2}`, "#", "behind the end")
	refuse(`{"a":1}x`, "#", "behind the end")
	refuse("{}\x00", "#", "behind the end")
	refuse(`{"a":1,"b":{"c":2,"c":3}}`, "#/b/c", "twice")
	refuse(`{"a":1,"\u0061":2}`, "#/a", "twice")
	refuse(`{"":1,"":2}`, "#/", "twice")
	refuse(`{"a\u0000b":1}`, "#/a%00b", "NUL")
	refuse(`{"\/":1,"/":2}`, "#/~1", "twice")
	refuse(`[[0,{"a~/b":[1,tru]}]]`, "#/0/1/a~0~1b/1", "not JSON")
	refuse(`{"a":"`+"\xff"+`"}`, "#/a", "UTF-8")
	refuse(`{"`+"\xed\xa0\x80"+`":0}`, "#", "UTF-8") // a surrogate in UTF-8
	refuse(`["\ud83d"]`, "#/0", "stands for no character")
	refuse(`["\ude00\ud83d"]`, "#/0", "stands for no character")
	refuse(`["\x41"]`, "#/0", "stands for no character")
	refuse("[\"a\nb\"]", "#/0", "control character")
	refuse("\ufeff{}", "#", "byte order mark")
	for _, text := range []string{`NaN`, `Infinity`, `-Infinity`, `[+1]`, `[01]`, `[1.]`, `[.5]`, `[1e]`, `[0x10]`, `[1,]`, `{"a":1,}`, `{a:1}`, `{'a':1}`, `[1 2]`, `{"a" 1}`, `/*x*/1`, `[1}`, `nul`, `undefined`, `"a`, "[\v1]"} {
		if f := (JSON{}).Check([]byte(text)); f == nil {
			t.Errorf("%q passes", text)
		}
	}
	refuse(strings.Repeat("[", 33)+strings.Repeat("]", 33), "#"+strings.Repeat("/0", 32), "deeper than 32")
	refuse(strings.Repeat(`{"a":`, 1e6), "#"+strings.Repeat("/a", 32), "deeper than 32")
	refuse(`[1e400]`, "#/0", "out of range")
	refuse(`[1e-400]`, "#/0", "out of range")
	refuse(`[1e1000000]`, "#/0", "out of range")
	refuse(`[`+strings.Repeat("9", 129)+`]`, "#/0", "128 characters")
	if f := (JSON{Depth: 1}).Check([]byte(`[[]]`)); f == nil {
		t.Error("deeper than asked for")
	}
	long := JSON{}.Check([]byte(`{"` + strings.Repeat("n", 1000) + `":x}`))
	if long.Pointer != "#/..." {
		t.Errorf("a long name stands in the pointer: %s", long.Pointer)
	}
	if f := (JSON{}).Check([]byte(`{"päss\"<":x}`)); f.Pointer != "#/p%c3%a4ss%22%3c" {
		t.Error(f.Pointer)
	}
}

func TestExactNumbers(t *testing.T) {
	exact := func(want bool, numbers ...string) {
		t.Helper()
		for _, n := range numbers {
			if f := (JSON{Exact: true}).Check([]byte(n)); (f == nil) != want {
				t.Errorf("%s: %+v", n, f)
			}
		}
	}
	exact(true, "0", "-0", "0.1", "1.10", "9007199254740992", "123456789012345", "1e22", "100000000000000000000000", "0.30000000000000004", "1e-7", "-0.0")
	exact(false, "9007199254740993", "0.1234567890123456789", "123456789012345678", "18446744073709551615", "0.1000000000000000055511151231257827")
}

// Names are looked up in constant time however many there are, and however they are chosen.
func TestManyNames(t *testing.T) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i := range 50_000 {
		if i > 0 {
			b.WriteByte(',')
		}
		json.NewEncoder(&b).Encode(strings.Repeat("x", i%7) + string(rune('a'+i%26)) + strings.Repeat("y", i/1000) + jsonNumber(i))
		b.WriteString(":{\"a\":0}")
	}
	b.WriteByte('}')
	if f := (JSON{}).Check(b.Bytes()); f != nil {
		t.Error(f)
	}
}

func jsonNumber(i int) string { b, _ := json.Marshal(i); return string(b) }

// What passes is what two other parsers read too, with the same values; what they refuse does not pass.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5e3,"\ud83d\ude00x",null,true,{}]}`, `{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `"\ud800"`, "\"\xff\"", `[1e400]`, `1 2`, `[[[[[]]]]]`, `{"é":"\/"}`, `-`, order} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		fault := JSON{Depth: 100}.Check(text)
		dec := jsontext.NewDecoder(bytes.NewReader(text)) // refuses duplicate names and what is not UTF-8
		value, err := dec.ReadValue()
		if err == nil {
			if _, end := dec.ReadToken(); !errors.Is(end, io.EOF) {
				err = errors.New("trailing data")
			}
		}
		if fault == nil {
			if err != nil || !json.Valid(text) {
				t.Fatalf("%q passes; jsontext: %v", text, err)
			}
			d := json.NewDecoder(bytes.NewReader(text))
			d.UseNumber()
			var want any
			if err = d.Decode(&want); err != nil {
				t.Fatal(err)
			}
			if got := decode(text); !reflect.DeepEqual(got, want) {
				t.Fatalf("%q: %#v, want %#v", text, got, want)
			}
			return
		}
		// Beyond jsontext, only depth, the range of numbers and lone surrogates are refused.
		if err == nil && !strings.Contains(fault.Detail, "deeper") && !strings.Contains(fault.Detail, "number") {
			t.Fatalf("%q: refused, %s %s; jsontext reads %s", text, fault.Pointer, fault.Detail, value)
		}
	})
}

const order = `{"id":"7c0e6b0a-63a5-4b1c-9d3e-0d2f3a1b4c5d","customer":{"name":"Alice Example","email":"alice@example.com","address":{"street":"1 Long Road","city":"Springfield","zip":"12345","country":"GB"}},"items":[` +
	`{"sku":"A-1001","name":"Copper kettle, 2 litres","quantity":1,"price":42.5,"tags":["kitchen","copper"]},{"sku":"A-1002","name":"Tea towel","quantity":3,"price":4.25,"tags":["kitchen"]},` +
	`{"sku":"B-2001","name":"Lamp, brass, with shade","quantity":2,"price":61,"tags":["light","brass","living room"]},{"sku":"B-2002","name":"Bulb E27, 8 W","quantity":6,"price":3.1,"tags":["light"]},` +
	`{"sku":"C-3001","name":"Rope, hemp, 20 m","quantity":1,"price":18.9,"tags":[]}],"currency":"GBP","gift":false,"note":"Please leave it with the neighbour at number 3. The bell does not ring.","coupon":null,` +
	`"shipping":{"method":"standard","price":5.9,"insured":true,"window":{"from":"2026-11-23T08:00:00Z","to":"2026-11-25T18:00:00Z"}},"total":197.85}`
