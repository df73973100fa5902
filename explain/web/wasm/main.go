//go:build js && wasm

// Command wasm is the model for the page: it puts globalThis.moat into a worker, with
// explain(json), paste(text) and play(json), which take a string and return JSON.
package main

import (
	"syscall/js"
	"time"

	"github.com/moat-gateway/moat/explain/web/page"
)

func main() {
	js.Global().Set("moat", js.ValueOf(map[string]any{
		"explain": function("explain"),
		"paste":   function("paste"),
		"play":    function("play"),
	}))
	select {} // a program that ends takes its functions along
}

func function(name string) js.Func {
	return js.FuncOf(func(_ js.Value, args []js.Value) any {
		input := ""
		if len(args) > 0 && args[0].Type() == js.TypeString {
			input = args[0].String()
		}
		return page.Call(name, input, time.Now())
	})
}
