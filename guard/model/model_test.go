package model_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/model"
)

var small = model.Price{Input: 250e6, CacheRead: 25e6, Output: 2e9}

func policy(api model.API, change ...func(*model.Policy)) model.Policy {
	p := model.Policy{API: api, Models: map[string]model.Price{"small": small}, MaxTokens: 800, AskForUsage: true}
	for _, f := range change {
		f(&p)
	}
	return p
}

func newGuard(t testing.TB, p model.Policy) *model.Guard {
	t.Helper()
	g, err := model.New(p)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

var asJSON = http.Header{"Content-Type": {"application/json"}}

// rules are lines of what a guard allows and denies.
type rules struct {
	*testing.T
	g *model.Guard
}

// allow returns the call, which leaves body as it is but for what is missing.
func (r rules) allow(body string) *model.Call {
	r.Helper()
	c, d := r.g.Decide(asJSON, []byte(body))
	if d.Denied() {
		r.Errorf("%s: denied: %v %+v", body, d.Reason, d.Evidence)
		return nil
	}
	return c
}

func (r rules) deny(body string, want guard.Reason) {
	r.Helper()
	if c, d := r.g.Decide(asJSON, []byte(body)); d.Reason != want || c != nil || !d.Denied() {
		r.Errorf("%.200s: %v %+v; want %v", body, d.Reason, d.Evidence, want)
	}
}

func TestChatCallsThatTheirBytesBoundAreAllowed(t *testing.T) {
	r := rules{t, newGuard(t, policy(model.OpenAIChat))}
	r.allow(`{"model": "small", "max_tokens": 800, "messages": [{"role": "user", "content": "hello"}]}`)
	r.allow(`{"model": "small", "max_completion_tokens": 800, "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]}`)
	r.allow(`{"model": "small", "n": 2, "max_tokens": 400, "messages": []}`)
	r.allow(`{"model": "small", "store": false, "audio": null, "web_search_options": null, "service_tier": "flex", "modalities": ["text"], "messages": []}`)
	r.allow(`{"model": "small", "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"type": {"type": "web_search"}}}}}], "messages": []}`)
	r.allow(`{"model": "small", "messages": [{"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}], "audio": null}, {"role": "tool", "tool_call_id": "1", "content": "1"}]}`)
}

func TestChatCallsWhoseCostNobodyCanBoundAreDenied(t *testing.T) {
	r := rules{t, newGuard(t, policy(model.OpenAIChat))}
	r.deny(`{"model": "large", "messages": []}`, guard.ModelNotAllowed)
	r.deny(`{"model": "Small", "messages": []}`, guard.ModelNotAllowed)
	r.deny(`{"messages": []}`, guard.ModelNotAllowed)
	r.deny(`{"model": "small", "max_tokens": 801}`, guard.ModelTokensTooMany)
	r.deny(`{"model": "small", "max_tokens": 1, "max_completion_tokens": 801}`, guard.ModelTokensTooMany)
	r.deny(`{"model": "small", "max_tokens": 801, "max_completion_tokens": 1}`, guard.ModelTokensTooMany)
	r.deny(`{"model": "small", "max_tokens": 401, "n": 2}`, guard.ModelTokensTooMany)
	r.deny(`{"model": "small", "n": 801}`, guard.ModelTokensTooMany)
	r.deny(`{"model": "small", "max_tokens": 99999999999999999999999}`, guard.ModelTokensTooMany)
	r.deny(`{"model": "small", "max_tokens": 4611686018427387904, "n": 4}`, guard.ModelTokensTooMany)
	// What a server could take for no bound at all, or read as another number.
	for _, n := range []string{"0", "-1", "8e2", "800.0", `"800"`, "true", "[]", "{}", "08"} {
		r.deny(`{"model": "small", "max_tokens": `+n+`}`, guard.ModelRequestUnreadable)
		r.deny(`{"model": "small", "n": `+n+`}`, guard.ModelRequestUnreadable)
	}
	r.deny(`{"model": "small", "stream": "yes"}`, guard.ModelRequestUnreadable)
	for _, field := range []string{
		`"store": true`, `"web_search_options": {}`, `"prediction": {"type": "content", "content": "x"}`, `"audio": {"voice": "alloy", "format": "wav"}`,
		`"modalities": ["text", "audio"]`, `"service_tier": "priority"`, `"service_tier": "scale"`, `"extra_body": {}`, `"MODEL": "large"`, `"Max_Tokens": 90000`, `"best_of": 20`,
		`"tools": [{"type": "web_search"}]`, `"tools": [{"function": {"name": "f"}}]`, `"tools": [{"type": "mcp", "server_url": "https://evil.test"}]`,
		`"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://evil.test/large.png"}}]}]`,
		`"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]`,
		`"messages": [{"role": "user", "content": [{"image_url": {"url": "data:"}}]}]`,
		`"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": ""}}]}]`,
		`"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]`,
		`"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "file_id": "1"}]}]`,
		`"messages": [[[{"content": [{"content": [{"type": "image_url"}]}]}]]]`,
	} {
		r.deny(`{"model": "small", `+field+`}`, guard.ModelFieldNotAllowed)
	}
}

func TestOnlyWhatAllParsersReadAlikeIsRead(t *testing.T) {
	r := rules{t, newGuard(t, policy(model.OpenAIChat))}
	deep := strings.Repeat("[", 70) + strings.Repeat("]", 70)
	many := &strings.Builder{}
	for i := range 1000 {
		fmt.Fprintf(many, `"k%d":1,`, i)
	}
	for _, body := range []string{
		"", "null", "[]", `"small"`, "{", `{"model"}`, `{"model":"small"`, `{"model":"small",}`, `{,}`, `{"model":"small"}{}`, `{"model":"small"} x`, "\ufeff" + `{"model":"small"}`,
		`{"model":"small","model":"large"}`, `{"model":"small","mod\u0065l":"large"}`, `{"model":"small","stream":true,"stream":false}`,
		`{"model":"small","tools":[{"type":"function","type":"web_search"}]}`, `{"model":"small","messages":[{"content":"a","content":[{"type":"image_url"}]}]}`,
		`{"model":"small","metadata":{"a":{"b":1,"b":2}}}`, `{"model":"small","metadata":{` + many.String() + `"k999":1}}`,
		`{"model":"small","user":"` + "\xff" + `"}`, "{\"model\":\"small\",\"user\":\"a\nb\"}", `{"model":"small","user":"\x"}`, `{"model":"small","user":"\u12g4"}`,
		`{"model":"small","seed":01}`, `{"model":"small","seed":+1}`, `{"model":"small","seed":1.}`, `{"model":"small","seed":NaN}`, `{"model":"small","seed":0x10}`, `{'model':'small'}`,
		`{"model":"small"/**/}`, `{"model":"small","metadata":` + deep + `}`, `{"model":"small","logit_bias":` + strings.Repeat(`{"a":`, 100_000) + `}`,
	} {
		r.deny(body, guard.ModelRequestUnreadable)
	}
	r.allow(" {\"mod\\u0065l\" :\t\"sm\\u0061ll\" ,\r\n\"metadata\":{" + many.String() + "\"x\":[1,-2.5e+3,0,true,false,null,{},[]]}} ")
}

func TestCompletionsCalls(t *testing.T) {
	r := rules{t, newGuard(t, policy(model.OpenAICompletions))}
	for body, answers := range map[string]int64{
		`"prompt": "hello"`: 1, `"prompt": null`: 1, `"prompt": []`: 1, `"prompt": ["a", "b"]`: 2, `"prompt": [15, 20, 3]`: 1, `"prompt": [[15, 20], [3], []]`: 3,
		`"prompt": ["a", "b"], "n": 3`: 6, `"n": 2, "best_of": 4, "prompt": ["a", "b"]`: 8, `"prompt": ["a", 15]`: 2, `"prompt": "a", "suffix": "b", "echo": false, "logprobs": 5, "best_of": null`: 1,
	} {
		if c := r.allow(`{"model": "small", "max_tokens": 100, ` + body + `}`); c != nil && c.Most.Output != 100*answers {
			t.Errorf("%s: %+v; want %d answers", body, c.Most, answers)
		}
	}
	r.deny(`{"model": "small", "max_tokens": 801, "prompt": "a"}`, guard.ModelTokensTooMany)
	r.deny(`{"model": "small", "max_tokens": 401, "prompt": ["a", "b"]}`, guard.ModelTokensTooMany)
	r.deny(`{"model": "small", "prompt": ["a", "b"], "n": 99999999999999999999, "max_tokens": 1}`, guard.ModelTokensTooMany)
	r.deny(`{"model": "small", "prompt": [[["a"]]]}`, guard.ModelRequestUnreadable)
	r.deny(`{"model": "small", "prompt": "a", "prompt": ["a", "b"]}`, guard.ModelRequestUnreadable)
	for _, field := range []string{`"echo": true`, `"store": true`, `"messages": []`, `"prompt": {"id": "pmpt_1"}`, `"prompt": [{"text": "a"}]`, `"prompt_embeds": "AAAA"`, `"max_completion_tokens": 5`, `"min_tokens": 900`, `"use_beam_search": true`} {
		r.deny(`{"model": "small", `+field+`}`, guard.ModelFieldNotAllowed)
	}
}

func TestResponsesCalls(t *testing.T) {
	r := rules{t, newGuard(t, policy(model.OpenAIResponses))}
	r.allow(`{"model": "small", "input": "hello", "max_output_tokens": 800, "previous_response_id": null, "store": false}`)
	r.allow(`{"model": "small", "instructions": "be short", "input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}, {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "a"}]}]}`)
	r.deny(`{"model": "small", "input": "hello", "max_output_tokens": 801}`, guard.ModelTokensTooMany)
	for _, field := range []string{
		`"previous_response_id": "resp_1"`, `"conversation": "conv_1"`, `"prompt": {"id": "pmpt_1"}`, `"background": true`, `"store": true`, `"service_tier": "priority"`, `"max_tokens": 5`, `"n": 2`,
		`"context_management": [{"type": "compaction"}]`,
		`"tools": [{"type": "web_search"}]`, `"tools": [{"type": "file_search", "vector_store_ids": []}]`, `"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]`,
		`"tools": [{"type": "image_generation"}]`, `"tools": [{"type": "computer_use_preview"}]`, `"tools": [{"type": "mcp"}]`,
		`"input": [{"type": "item_reference", "id": "msg_1"}]`, `"input": [{"id": "msg_1", "type": "reasoning", "encrypted_content": "AAAA"}]`,
		`"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]}]`, `"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "https://evil.test"}]}]`,
		`"input": [{"type": "function_call_output", "call_id": "1", "output": [{"type": "input_image", "image_url": "https://evil.test"}]}]`,
		`"instructions": [{"role": "system", "content": [{"type": "input_file"}]}]`,
	} {
		r.deny(`{"model": "small", `+field+`}`, guard.ModelFieldNotAllowed)
	}
}

func TestMessagesCalls(t *testing.T) {
	r := rules{t, newGuard(t, policy(model.AnthropicMessages))}
	r.allow(`{"model": "small", "max_tokens": 800, "system": [{"type": "text", "text": "be short"}], "messages": [{"role": "user", "content": "hello"}], "thinking": {"type": "enabled", "budget_tokens": 500}}`)
	r.allow(`{"model": "small", "max_tokens": 1, "tools": [{"name": "f", "input_schema": {}}, {"type": "custom", "name": "g", "input_schema": {}}], "messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "a"}]}]}]}`)
	for _, field := range []string{
		`"mcp_servers": [{"url": "https://evil.test"}]`, `"container": "container_1"`, `"context_management": {"edits": []}`, `"speed": "fast"`, `"inference_geo": "us"`, `"service_tier": "priority"`,
		`"tools": [{"type": "web_search_20250305", "name": "web_search"}]`, `"tools": [{"type": "code_execution_20250825"}]`, `"tools": [{"type": "computer_20250124"}]`,
		`"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64"}}]}]`, `"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "file", "file_id": "1"}}]}]`,
		`"messages": [{"role": "user", "content": [{"type": "container_upload", "file_id": "1"}]}]`, `"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [{"type": "image"}]}]}]`,
		`"messages": [{"role": "assistant", "content": [{"type": "thinking", "thinking": "", "signature": "AAAA"}]}]`,
		// The model has no price for this.
		`"cache_control": {"type": "ephemeral"}`, `"system": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]`, `"tools": [{"name": "f", "cache_control": {"type": "ephemeral"}}]`,
	} {
		r.deny(`{"model": "small", "max_tokens": 5, `+field+`}`, guard.ModelFieldNotAllowed)
	}
}

func TestTheHeadIsPartOfTheCall(t *testing.T) {
	g := newGuard(t, policy(model.AnthropicMessages, func(p *model.Policy) { p.Fields = []string{"token-efficient-tools-2025-02-19"} }))
	for _, x := range []struct {
		name, value string
		want        guard.Reason
	}{
		{"Content-Type", "application/json; charset=utf-8", guard.OK},
		{"Content-Type", "application/json; charset=utf-16", guard.ModelRequestUnreadable},
		{"Content-Type", "text/plain", guard.ModelRequestUnreadable},
		{"Content-Type", "", guard.ModelRequestUnreadable},
		{"Content-Encoding", "gzip", guard.ModelRequestUnreadable},
		{"Content-Encoding", "identity", guard.OK},
		{"Anthropic-Beta", "token-efficient-tools-2025-02-19", guard.OK},
		{"Anthropic-Beta", "token-efficient-tools-2025-02-19, context-1m-2025-08-07", guard.ModelFieldNotAllowed},
		{"OpenAI-Beta", "assistants=v2", guard.ModelFieldNotAllowed},
		{"OpenAI-Organization", "org-other", guard.ModelFieldNotAllowed},
		{"OpenAI-Project", "proj_other", guard.ModelFieldNotAllowed},
	} {
		h := asJSON.Clone()
		h.Set(x.name, x.value)
		if _, d := g.Decide(h, []byte(`{"model":"small","messages":[]}`)); d.Reason != x.want {
			t.Errorf("%s: %s: %v %+v; want %v", x.name, x.value, d.Reason, d.Evidence, x.want)
		}
	}
}

func TestWhatIsMissingIsPutInAndAllElseStays(t *testing.T) {
	for _, x := range []struct {
		api       model.API
		body, out string // out is what stands in the place of what is between the bars in body
	}{
		{model.OpenAIChat, `{"model":"small" , "user":"ü" ||}`, `,"max_completion_tokens":800`},
		{model.OpenAIChat, `{"model":"small","n":3||} `, `,"max_completion_tokens":266`},
		{model.OpenAIChat, `{"max_completion_tokens": |null| ,"model":"small"}`, `800`},
		{model.OpenAIChat, `{"max_tokens":null,"model":"small"||}`, `,"max_completion_tokens":800`},
		{model.OpenAIChat, `{"max_completion_tokens":null,"max_tokens":5,"model":"small"}`, ``},
		{model.OpenAIChat, `{"model":"small","max_tokens":5,"stream":true||}`, `,"stream_options":{"include_usage":true}`},
		{model.OpenAIChat, `{"model":"small","max_tokens":5,"stream_options":|null|,"stream":true}`, `{"include_usage":true}`},
		{model.OpenAIChat, `{"model":"small","max_tokens":5,"stream_options":{ ||},"stream":true}`, `"include_usage":true`},
		{model.OpenAIChat, `{"model":"small","max_tokens":5,"stream_options":{"include_obfuscation":false||},"stream":true}`, `,"include_usage":true`},
		{model.OpenAIChat, `{"model":"small","max_tokens":5,"stream_options":{"include_usage": |false| },"stream":true}`, `true`},
		{model.OpenAIChat, `{"model":"small","max_tokens":5,"stream_options":{"include_usage":true},"stream":true}`, ``},
		{model.OpenAIChat, `{"model":"small","max_tokens":5,"stream":false}`, ``},
		{model.OpenAICompletions, `{"model":"small","prompt":["a","b"]||}`, `,"max_tokens":400`},
		{model.OpenAICompletions, `{"model":"small","max_tokens":5,"stream":true,"prompt":"a"||}`, `,"stream_options":{"include_usage":true}`},
		{model.OpenAIResponses, `{"model":"small","stream":true,"input":"a"||}`, `,"max_output_tokens":800`},
		{model.AnthropicMessages, `{"model":"small","stream":true||}`, `,"max_tokens":800`},
	} {
		parts := strings.Split(x.body, "|")
		sent, want := strings.Join(parts, ""), x.body
		if len(parts) == 3 {
			want = parts[0] + x.out + parts[2]
		}
		c := rules{t, newGuard(t, policy(x.api))}.allow(sent)
		if c == nil {
			continue
		}
		if string(c.Body) != want {
			t.Errorf("%s\nbecame %s\nwant   %s", sent, c.Body, want)
		}
		if again, d := newGuard(t, policy(x.api)).Decide(asJSON, c.Body); d.Denied() || string(again.Body) != want || again.Most.Output != c.Most.Output {
			t.Errorf("%s is not what it was made for: %v", c.Body, d)
		}
	}
}

func TestTheMostThatACallCanTake(t *testing.T) {
	image := func(p *model.Policy) { p.Media = map[string]int64{"image_url": 1600} }
	text := `{"model":"small","max_tokens":100,"messages":[{"role":"user","content":"` + strings.Repeat("日本", 500) + `"}]}`
	r := rules{t, newGuard(t, policy(model.OpenAIChat, image))}
	if c := r.allow(text); c.Most.Output != 100 || c.Most.Input < 3000 || c.Most.Input > int64(len(text))+256 {
		t.Errorf("%+v for %d bytes", c.Most, len(text))
	}
	if c := r.allow(`{"model":"small","n":3,"max_tokens":100}`); c.Most.Output != 300 {
		t.Errorf("three answers: %+v", c.Most)
	}
	part := `{"type":"image_url","image_url":{"url":"data:image/png;base64,` + strings.Repeat("A", 100_000) + `"}}`
	one := r.allow(`{"model":"small","messages":[{"role":"user","content":[` + part + `]}]}`)
	two := r.allow(`{"model":"small","messages":[{"role":"user","content":[` + part + `,` + part + `]}]}`)
	if one.Most.Input < 1600 || one.Most.Input > 2500 || two.Most.Input != one.Most.Input+1601 {
		t.Errorf("images: %+v, %+v", one.Most, two.Most)
	}
	tools := r.allow(`{"model":"small","tools":[]}`)
	if none := r.allow(`{"model":"small"}`); tools.Most.Input < none.Most.Input+1024 {
		t.Errorf("the provider's instructions for tools are not counted: %+v", tools.Most)
	}
	r = rules{t, newGuard(t, policy(model.OpenAIChat, func(p *model.Policy) { p.MaxInputTokens = 1000 }))}
	r.deny(text, guard.ModelTokensTooMany)
	r.allow(`{"model":"small","messages":[]}`)
	caching := newGuard(t, policy(model.AnthropicMessages, func(p *model.Policy) {
		p.Models = map[string]model.Price{"small": {Input: 1e9, CacheRead: 1e8, CacheWrite: 2e9, Output: 5e9}}
	}))
	c := rules{t, caching}.allow(`{"model":"small","max_tokens":10,"system":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}}],"messages":[]}`)
	if c.Most.Input != 0 || c.Most.CacheWrite == 0 || c.Cost(c.Most) < 2000*c.Most.CacheWrite {
		t.Errorf("what is written to a cache costs more: %+v, %d", c.Most, c.Cost(c.Most))
	}
}

func TestWhatThePolicyNamesIsAllowed(t *testing.T) {
	r := rules{t, newGuard(t, policy(model.OpenAIResponses, func(p *model.Policy) {
		p.Fields, p.Tools, p.Media = []string{"previous_response_id", "service_tier", "reasoning", "background"}, []string{"web_search"}, map[string]int64{"input_image": 100}
	}))}
	r.allow(`{"model":"small","previous_response_id":"resp_1","service_tier":"priority","background":true,"tools":[{"type":"web_search"}],"input":[{"type":"reasoning","encrypted_content":"AAAA"},{"role":"user","content":[{"type":"input_image","file_id":"1"}]}]}`)
	r.deny(`{"model":"small","conversation":"c"}`, guard.ModelFieldNotAllowed)
	r.deny(`{"model":"small","tools":[{"type":"code_interpreter"}]}`, guard.ModelFieldNotAllowed)
	r = rules{t, newGuard(t, policy(model.OpenAIChat, func(p *model.Policy) { p.LimitField = "max_tokens" }))}
	r.deny(`{"model":"small","max_completion_tokens":5}`, guard.ModelFieldNotAllowed)
	if c := r.allow(`{"model":"small"}`); c != nil && string(c.Body) != `{"model":"small","max_tokens":800}` {
		t.Errorf("%s", c.Body)
	}
}

func TestNewSaysEverythingThatIsWrong(t *testing.T) {
	if _, err := model.New(model.Policy{}); err == nil || !strings.Contains(err.Error(), "openai-chat, openai-completions, openai-responses, anthropic-messages") {
		t.Error(err)
	}
	_, err := model.New(model.Policy{
		API: model.AnthropicMessages, Models: map[string]model.Price{"a": {Input: -1}, "b": {Input: 1, CacheRead: 2}}, MaxTokens: 0, MaxInputTokens: -1,
		LimitField: "n", Fields: []string{"stream"}, Media: map[string]int64{"image": 0, "text": 5},
	})
	for _, want := range []string{"models: a:", "models: b:", "max_tokens: 0", "max_input_tokens", "max_tokens_field", "fields: stream", "media: image", "media: text"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("nothing about %q in %v", want, err)
		}
	}
	if _, err = model.New(model.Policy{API: model.OpenAIChat, MaxTokens: 5}); err == nil || !strings.Contains(err.Error(), "models: none") {
		t.Error(err)
	}
}

func TestCostIsRoundedUpAndNeverOverflows(t *testing.T) {
	for _, x := range []struct {
		u    model.Usage
		p    model.Price
		want int64
	}{
		{model.Usage{}, small, 0},
		{model.Usage{Input: 1_000_000, Output: 1_000_000}, small, 2_250_000_000},
		{model.Usage{Input: 7, CacheRead: 3, Output: 11}, small, 7*250 + 3*25 + 11*2000},
		{model.Usage{Input: 1}, model.Price{Input: 1}, 1},
		{model.Usage{Input: 1_000_001}, model.Price{Input: 1}, 2},
		{model.Usage{Input: 1 << 30}, model.Price{Input: model.MaxPrice}, 1 << 30 * (model.MaxPrice / 1_000_000)},
		{model.Usage{Input: math.MaxInt64, Output: math.MaxInt64}, model.Price{Input: math.MaxInt64, Output: math.MaxInt64}, math.MaxInt64},
		{model.Usage{Input: -5}, small, 0},
	} {
		if got := x.p.Cost(x.u); got != x.want {
			t.Errorf("%+v at %+v costs %d, want %d", x.u, x.p, got, x.want)
		}
	}
}

// FuzzDecide: whatever comes, a call that may be made is one JSON object that says what the guard says
// it does, by the standard library's parser too, and reads the same when it is read again.
func FuzzDecide(f *testing.F) {
	for _, body := range []string{
		`{"model":"small","n":2,"stream":true,"messages":[{"role":"user","content":[{"type":"text","text":"\u00e9\n"}]}],"tools":[{"type":"function"}]}`,
		`{"model":"small","max_tokens":null,"max_completion_tokens":null,"stream_options":{"include_usage":false},"stream":true}`,
		`{"model":"small","prompt":["a",[1,2]],"n":2,"best_of":3,"stream":true}`, `{"model":"small","prompt":["a",1,2]}`,
		`{"model":"small","input":[{"type":"function_call_output","output":"a"}],"max_output_tokens":5}`, `{"model":"sm\u0061ll","metadata":{"a":[1e5,{}]}}`,
		`{"model":"small","metadata":{"a":[1e1111]}}`, `{"model":"small","n":1e1111}`, `{"model":"small","max_tokens":1e1111}`, `{"model":"small","a":1,"a":2}`, `[`,
	} {
		for api := range 4 {
			f.Add(byte(api), body)
		}
	}
	var guards [4]*model.Guard // made once: see FuzzMeter
	for i := range guards {
		guards[i] = newGuard(f, policy(model.API(i+1), func(p *model.Policy) { p.Media = map[string]int64{"image": 5} }))
	}
	f.Fuzz(func(t *testing.T, which byte, body string) {
		g := guards[int(which)%len(guards)]
		c, d := g.Decide(asJSON, []byte(body))
		if d.Denied() != (c == nil) {
			t.Fatal("neither a call nor a denial, or both")
		}
		if c == nil {
			return
		}
		was, err := readObject([]byte(body))
		if err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		is, err := readObject(c.Body)
		if err != nil {
			t.Fatalf("%q became %q: %v", body, c.Body, err)
		}
		n := 1.0
		for _, name := range []string{"n", "best_of"} {
			n = max(n, number(is[name]))
		}
		if list, ok := is["prompt"].([]any); ok {
			texts, others := 0.0, 0.0 // all that is neither text nor a list is of one prompt
			for _, v := range list {
				switch v.(type) {
				case string, []any:
					texts++
				default:
					others = 1
				}
			}
			n *= max(1, texts+others)
		}
		bounded := 0.0
		for _, name := range []string{"max_tokens", "max_completion_tokens", "max_output_tokens"} {
			bounded = max(bounded, number(is[name]))
			delete(was, name)
			delete(is, name)
		}
		if bounded < 1 || bounded*n > 800 || float64(c.Most.Output) != bounded*n {
			t.Fatalf("%q: %v tokens in %v answers; the guard says %+v", c.Body, bounded, n, c.Most)
		}
		if is["model"] != "small" || c.Model != "small" {
			t.Fatalf("%q asks for %v", c.Body, is["model"])
		}
		delete(was, "stream_options")
		delete(is, "stream_options")
		if !reflect.DeepEqual(was, is) {
			t.Fatalf("%q became %q", body, c.Body)
		}
		if again, second := g.Decide(asJSON, c.Body); second.Denied() || string(again.Body) != string(c.Body) {
			t.Fatalf("%q is read otherwise the second time: %v", c.Body, second)
		}
	})
}

// readObject reads one JSON object with the standard library. Numbers stay as they are written: those that
// nobody bounds may be greater than any float64.
func readObject(body []byte) (map[string]any, error) {
	var object map[string]any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&object); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("more follows the object")
	}
	return object, nil
}

// number is v, or 0 if it is none.
func number(v any) float64 {
	n, _ := v.(json.Number)
	f, _ := n.Float64()
	return f
}
