package body

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/guard"
)

const orderSchema = `{"type":"object","required":["id","customer","items","total"],"properties":{"id":{"type":"string","format":"uuid"},
"customer":{"type":"object","required":["name","email"],"properties":{"name":{"type":"string","maxLength":80},"email":{"type":"string","format":"email"},"address":{"type":"object"}}},
"items":{"type":"array","minItems":1,"maxItems":100,"items":{"type":"object","required":["sku","quantity"],"properties":{"sku":{"type":"string","pattern":"^[A-Z]-[0-9]{4}$"},"quantity":{"type":"integer","minimum":1},
"price":{"type":"number","minimum":0},"tags":{"type":"array","items":{"type":"string"}}}}},"currency":{"enum":["GBP","EUR"]},"total":{"type":"number"},"note":{"type":"string","maxLength":500}}}`

// BenchmarkBody is what a JSON body of 1.1 KiB costs, by what it is held to.
func BenchmarkBody(b *testing.B) {
	var tree any
	if err := json.Unmarshal([]byte(orderSchema), &tree); err != nil {
		b.Fatal(err)
	}
	schema, err := NewSchema(Files{"order.json": tree}, "order.json", SchemaOptions{})
	if err != nil {
		b.Fatal(err)
	}
	api, faults := NewAPI(Files{"api.yaml": map[string]any{"openapi": "3.1.0", "paths": map[string]any{"/orders/{shop}": map[string]any{"post": map[string]any{
		"parameters":  []any{map[string]any{"name": "shop", "in": "path", "required": true, "schema": map[string]any{"type": "string"}}},
		"requestBody": map[string]any{"content": map[string]any{"application/json": map[string]any{"schema": tree}}},
	}}}}}, "api.yaml", APIOptions{})
	if faults != nil {
		b.Fatal(faults)
	}
	text := []byte(order)
	for name, p := range map[string]Policy{"strict": {StrictJSON: true}, "schema": {Schema: schema}, "openapi": {API: api}} {
		g := New(p)
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest("POST", "/orders/north", strings.NewReader(order))
			r.Header.Set("Content-Type", "application/json")
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				m, d := g.Decide(b.Context(), r)
				if d.Outcome != guard.Allow {
					b.Fatal(d)
				}
				if _, d, err := g.Body(b.Context(), &m, text); err != nil || d.Outcome != guard.Allow {
					b.Fatal(d, err)
				}
			}
		})
	}
	b.Run("encoding-json-valid", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			if !json.Valid(text) {
				b.Fatal()
			}
		}
	})
	b.Run("scanner", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		b.ReportAllocs()
		for b.Loop() {
			if f := (JSON{}).Check(text); f != nil {
				b.Fatal(f)
			}
		}
	})
}
