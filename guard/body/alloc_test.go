//go:build !race

package body

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// The race detector makes sync.Pool drop what it holds, so this is left out there; make
// check runs it.
func TestCheckDoesNotAllocate(t *testing.T) {
	text := []byte(order)
	if n := testing.AllocsPerRun(100, func() {
		if f := (JSON{}).Check(text); f != nil {
			t.Fatal(f)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// Memory stands for the work, which a clock on a busy machine does not tell: whatever is sent for
// whatever schema, both are in proportion to the size of the body.
func TestWhatABodyCostsIsBoundedByItsSize(t *testing.T) {
	const size = 256 << 10
	values := make([]any, 20_000)
	for i := range values {
		values[i] = json.Number(strconv.Itoa(i) + "e300")
	}
	full := func(begin, item, end string) string { // as many of the item as fit
		return begin + strings.Repeat(item, (size-len(begin)-len(end))/len(item)) + end
	}
	names, lists := new(strings.Builder), new(strings.Builder)
	for i := range size / 10 {
		fmt.Fprintf(names, `"%05x":0,`, i)
		fmt.Fprintf(lists, `[%de30],`, i)
	}
	for name, c := range map[string]struct {
		schema map[string]any
		text   string
	}{
		"a large enum":                 {map[string]any{"items": map[string]any{"enum": values}}, full("[", "19999e300,", "0]")},
		"uniqueItems":                  {map[string]any{"uniqueItems": true}, "[" + lists.String() + "0]"},
		"const":                        {map[string]any{"items": map[string]any{"const": json.Number("1e300")}}, full("[", "1e300,", "0]")},
		"contains":                     {map[string]any{"contains": map[string]any{"const": json.Number("1")}}, full("[", "0,", "0]")},
		"multipleOf":                   {map[string]any{"items": map[string]any{"multipleOf": json.Number("1e-300")}}, full("[", "1e300,", "0]")},
		"regular expressions":          {map[string]any{"items": map[string]any{"format": "regex"}}, full(`["`, "x{1000}", `"]`)},
		"many regular expressions":     {map[string]any{"items": map[string]any{"format": "regex"}}, full(`[`, `"[\\pL\\pN]x{1000}",`, `""]`)},
		"names that nobody declared":   {map[string]any{"properties": map[string]any{"a": true}, "unevaluatedProperties": false}, "{" + names.String() + `"z":0}`},
		"branches in each level":       {map[string]any{"$defs": map[string]any{"a": map[string]any{"anyOf": []any{map[string]any{"items": map[string]any{"$ref": "#/$defs/a"}}, map[string]any{"items": map[string]any{"$ref": "#/$defs/a"}, "maxItems": json.Number("0")}}}}, "$ref": "#/$defs/a"}, full("[", `[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["x"]]]]]]]]]]]]]]]]]]]]]]]]]]]]]],`, "0]")},
		"conditions on every property": {map[string]any{"additionalProperties": map[string]any{"oneOf": []any{map[string]any{"const": json.Number("1")}, map[string]any{"const": json.Number("2")}, map[string]any{"type": "object"}}}}, "{" + names.String() + `"z":0}`},
	} {
		s, err := NewSchema(Files{"s": c.schema}, "s", SchemaOptions{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		text := []byte(c.text)
		if f := (JSON{Depth: 64}).Check(text); f != nil {
			t.Fatalf("%s: %+v", name, f)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := s.Check(t.Context(), text); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		runtime.ReadMemStats(&after)
		if perByte := (after.TotalAlloc - before.TotalAlloc) / uint64(len(text)); perByte > 2000 {
			t.Errorf("%s: %d bytes of memory for each of the body", name, perByte)
		}
	}
}
