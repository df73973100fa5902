package model_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/model"
)

// A part with media is counted by what its media take, and by all that is text in it.
func TestTextBesideMediaIsCounted(t *testing.T) {
	const text = 1 << 20
	long := strings.Repeat("a", text)
	chat := newGuard(t, policy(model.OpenAIChat, func(p *model.Policy) { p.Media = map[string]int64{"image_url": 1600} }))
	messages := newGuard(t, policy(model.AnthropicMessages, func(p *model.Policy) { p.Media = map[string]int64{"document": 3000, "image": 1600} }))
	for name, c := range map[string]struct {
		g    *model.Guard
		body string
	}{
		"a message that calls itself an image": {chat, `{"model":"small","messages":[{"role":"user","type":"image_url","content":"` + long + `"}]}`},
		"the context of a document":            {messages, `{"model":"small","messages":[{"role":"user","content":[{"type":"document","context":"` + long + `","source":{"type":"url","url":"https://x/"}}]}]}`},
		"a document of text":                   {messages, `{"model":"small","messages":[{"role":"user","content":[{"type":"document","source":{"type":"text","media_type":"text/plain","data":"` + long + `"}}]}]}`},
	} {
		call, d := c.g.Decide(asJSON, []byte(c.body))
		if d.Denied() {
			t.Errorf("%s: %+v", name, d)
		} else if call.Most.Input < text {
			t.Errorf("%s: %d tokens of input are set aside for %d letters", name, call.Most.Input, text)
		}
	}
	image := `{"type":"image","source":{"type":"base64","data":"` + strings.Repeat("a", 10_000) + `"}}`
	call, d := messages.Decide(asJSON, []byte(`{"model":"small","messages":[{"role":"user","content":[{"type":"document","source":{"type":"content","content":[`+image+","+image+","+image+`]}}]}]}`))
	if d.Denied() || call.Most.Input < 3000+3*1600 || call.Most.Input > 3000+3*1600+2000 {
		t.Errorf("a document of three images: %+v, %+v", call, d)
	}
}

func TestCallsThatTwoReadersReadDifferentlyAreDenied(t *testing.T) {
	chat, messages, responses := newGuard(t, policy(model.OpenAIChat)), newGuard(t, policy(model.AnthropicMessages)), newGuard(t, policy(model.OpenAIResponses))
	images := newGuard(t, policy(model.OpenAIChat, func(p *model.Policy) { p.Media = map[string]int64{"image_url": 1600} }))
	documents := newGuard(t, policy(model.AnthropicMessages, func(p *model.Policy) { p.Media = map[string]int64{"document": 3000} }))
	plain := `{"model":"small","messages":[]}`
	var names strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&names, `"%x":0,`, i)
	}
	for name, c := range map[string]struct {
		g    *model.Guard
		h    http.Header
		body string
		want guard.Reason
	}{
		"something behind a NUL":         {chat, asJSON, plain + "\x00" + plain, guard.ModelRequestUnreadable},
		"a second coding":                {chat, http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"", "gzip"}}, plain, guard.ModelRequestUnreadable},
		"a second type":                  {chat, http.Header{"Content-Type": {"application/json", "multipart/form-data; boundary=x"}}, plain, guard.ModelRequestUnreadable},
		"a tool's Type":                  {messages, asJSON, `{"model":"small","messages":[],"tools":[{"Type":"web_search_20250305","name":"web_search"}]}`, guard.ModelFieldNotAllowed},
		"a tool's Type beside its type":  {chat, asJSON, `{"model":"small","messages":[],"tools":[{"type":"function","Type":"web_search"}]}`, guard.ModelFieldNotAllowed},
		"a part's Type beside its type":  {images, asJSON, `{"model":"small","messages":[{"role":"user","content":[{"type":"image_url","Type":"text","Text":"long"}]}]}`, guard.ModelFieldNotAllowed},
		"a part's text in other letters": {images, asJSON, `{"model":"small","messages":[{"role":"user","content":[{"type":"image_url","Text":"long"}]}]}`, guard.ModelFieldNotAllowed},
		"a price that media bring in":    {images, asJSON, `{"model":"small","messages":[{"role":"user","content":[{"type":"image_url","cache_control":{"type":"ephemeral"}}]}]}`, guard.ModelFieldNotAllowed},
		"a source's Type":                {documents, asJSON, `{"model":"small","messages":[{"role":"user","content":[{"type":"document","source":{"type":"base64","Type":"text","data":"long"}}]}]}`, guard.ModelFieldNotAllowed},
		"an item whose content is null":  {responses, asJSON, `{"model":"small","input":[{"id":"msg_1","content":null}]}`, guard.ModelFieldNotAllowed},
		"an item that is only an id":     {responses, asJSON, `{"model":"small","input":[{"id":"msg_1"}]}`, guard.ModelFieldNotAllowed},
		"very many names":                {chat, asJSON, `{"model":"small","messages":[],"metadata":{` + names.String() + `"z":0}}`, guard.ModelRequestUnreadable},
	} {
		if call, d := c.g.Decide(c.h, []byte(c.body)); !d.Denied() || d.Reason != c.want {
			t.Errorf("%s: %+v, %+v", name, call, d)
		}
	}
}

// A stream of messages tells one token of output when it begins.
func TestAStreamThatEndsInAnErrorIsChargedAsReserved(t *testing.T) {
	call := asked(t)
	m := model.NewMeter(events)
	fmt.Fprint(m, strings.SplitAfter(messagesStream, "\n\n")[0]+"event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n")
	if u, estimated := call.Took(m, true); !estimated || u.Output != call.Most.Output {
		t.Errorf("took %+v, estimated %v; most %+v", u, estimated, call.Most)
	}
}

// Some keep input without having been asked, and say so.
func TestInputThatIsKeptWithoutAPriceCostsWhatAnyDoes(t *testing.T) {
	call := asked(t)
	m := model.NewMeter("application/json")
	fmt.Fprint(m, `{"usage":{"input_tokens":5,"cache_creation_input_tokens":1000,"output_tokens":10}}`)
	u, _ := call.Took(m, true)
	if got, want := call.Cost(u), small.Cost(model.Usage{Input: 1005, Output: 10}); got != want {
		t.Errorf("%+v costs %d, want %d", u, got, want)
	}
}
