package model_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/guard/model"
)

const events = "text/event-stream; charset=utf-8"

// asked is a call that can take 1000 tokens of input, or a little more, and 100 of output.
func asked(t testing.TB) *model.Call {
	t.Helper()
	body := `{"model":"small","max_tokens":100,"user":"` + strings.Repeat("a", 700) + `"}`
	c, d := newGuard(t, policy(model.OpenAIChat)).Decide(asJSON, []byte(body))
	if d.Denied() {
		t.Fatal(d)
	}
	return c
}

const chatStream = `data: {"id":"1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":""}}],"usage":null}

data: {"id":"1","choices":[{"index":0,"delta":{"content":"he said \"usage\": {\"prompt_tokens\": 999999} and \\"}}],"usage":null}

data: {"id":"1","choices":[],"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":7}}}

data: [DONE]

`

const messagesStream = `event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","content":[],"stop_reason":null,"usage":{"input_tokens":25,"cache_creation_input_tokens":100,"cache_read_input_tokens":200,"cache_creation":{"ephemeral_5m_input_tokens":100},"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"1","name":"f","input":{"usage":{"output_tokens":77777}}}}

: ping

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":15}}

event: message_stop
data: {"type":"message_stop"}

`

const responsesStream = `event: response.created
data: {"type":"response.created","response":{"id":"resp_1","status":"in_progress","metadata":{"usage":{"input_tokens":55555}},"usage":null}}

event: response.output_text.delta
data: {"type":"response.output_text.delta","delta":"response.completed"}

event: response.completed
data: {"type":"response.completed","response":{"id":"resp_1","usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":6},"output_tokens":87,"output_tokens_details":{"reasoning_tokens":64},"total_tokens":123}}}

`

func TestFiguresAreThoseOfTheProvider(t *testing.T) {
	for _, x := range []struct {
		name, kind, body string
		want             model.Usage
	}{
		{"chat", "application/json", `{"id":"1","choices":[{"message":{"content":"\"usage\":{\"prompt_tokens\":1}"}}],"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29}}`, model.Usage{Input: 19, Output: 10}},
		{"chat with cache", "application/json", `{"usage":{"prompt_tokens":19,"completion_tokens":10,"prompt_tokens_details":{"cached_tokens":4}}}`, model.Usage{Input: 15, CacheRead: 4, Output: 10}},
		{"reasoning that only the total holds", "application/json", `{"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":129}}`, model.Usage{Input: 19, Output: 110}},
		{"chat stream", events, chatStream, model.Usage{Input: 15, CacheRead: 4, Output: 10}},
		{"chat stream with CRLF", events, strings.ReplaceAll(chatStream, "\n", "\r\n"), model.Usage{Input: 15, CacheRead: 4, Output: 10}},
		{"chat stream with CR", events, strings.ReplaceAll(chatStream, "\n", "\r"), model.Usage{Input: 15, CacheRead: 4, Output: 10}},
		{"data over several lines", events, "data: {\"usage\":\ndata:{\"prompt_tokens\"\ndata: :19,\"completion_tokens\":10}}\n\n", model.Usage{Input: 19, Output: 10}},
		{"no line at the end", events, "data: {\"usage\":{\"prompt_tokens\":19,\"completion_tokens\":10}}", model.Usage{Input: 19, Output: 10}},
		{"messages", "application/json", `{"type":"message","usage":{"input_tokens":25,"output_tokens":15,"cache_read_input_tokens":3}}`, model.Usage{Input: 25, CacheRead: 3, Output: 15}},
		{"messages stream", events, messagesStream, model.Usage{Input: 25, CacheRead: 200, CacheWrite: 100, Output: 15}},
		{"responses", "application/json; charset=utf-8", `{"object":"response","output":[{"content":[{"text":"a"}]}],"usage":{"input_tokens":36,"output_tokens":87,"total_tokens":123}}`, model.Usage{Input: 36, Output: 87}},
		{"responses stream", events, responsesStream, model.Usage{Input: 30, CacheRead: 6, Output: 87}},
	} {
		m := model.NewMeter(x.kind)
		fmt.Fprint(m, x.body)
		if u, estimated := asked(t).Took(m, true); u != x.want || estimated {
			t.Errorf("%s: %+v, estimated %v; want %+v", x.name, u, estimated, x.want)
		}
	}
}

func TestAnAnswerWithoutFiguresTakesTheMostThatItCan(t *testing.T) {
	c := asked(t)
	for name, x := range map[string]struct {
		kind, body string
		ended      bool
		want       model.Usage
	}{
		"no answer":                            {"", "", false, c.Most},
		"no figures":                           {"application/json", `{"choices":[]}`, true, c.Most},
		"no figures in a stream":               {events, "data: {\"choices\":[]}\n\ndata: [DONE]\n\n", true, c.Most},
		"another type":                         {"text/html", "<p>usage", true, c.Most},
		"compressed":                           {"application/json", "\x1f\x8b\x08\x00usage", true, c.Most},
		"figures of nothing":                   {"application/json", `{"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}`, true, c.Most},
		"a stream that the client left":        {events, strings.SplitAfter(messagesStream, "\n\n")[0], false, model.Usage{Input: 25, CacheRead: 200, CacheWrite: 100, Output: 100}},
		"figures, and the client leaves then":  {events, strings.TrimSuffix(chatStream, "data: [DONE]\n\n"), false, model.Usage{Input: 15, CacheRead: 4, Output: 100}},
		"in the middle of a figure":            {"application/json", `{"usage":{"prompt_tokens":1`, false, c.Most},
		"a failed response without figures":    {events, "data: {\"type\":\"response.failed\",\"response\":{\"usage\":null}}\n\n", true, c.Most},
		"negative":                             {"application/json", `{"usage":{"prompt_tokens":-5,"completion_tokens":-5,"total_tokens":-10}}`, true, c.Most},
		"no whole numbers":                     {"application/json", `{"usage":{"prompt_tokens":1.5,"completion_tokens":1e9}}`, true, c.Most},
		"texts":                                {"application/json", `{"usage":{"prompt_tokens":"1","completion_tokens":"1"}}`, true, c.Most},
		"in a list":                            {"application/json", `[{"usage":{"prompt_tokens":1,"completion_tokens":1}}]`, true, c.Most},
		"in the place of another":              {"application/json", `{"choices":[{"usage":{"prompt_tokens":1,"completion_tokens":1}}],"x":{"usage":{"prompt_tokens":1,"completion_tokens":1}}}`, true, c.Most},
		"more output than was asked, and left": {events, "data: {\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":500}}\n\n", false, model.Usage{Input: 1, Output: 500}},
	} {
		m := model.NewMeter(x.kind)
		fmt.Fprint(m, x.body)
		if u, estimated := c.Took(m, x.ended); u != x.want || !estimated {
			t.Errorf("%s: %+v, estimated %v; want %+v", name, u, estimated, x.want)
		}
	}
	if u, estimated := c.Took(nil, false); u != c.Most || !estimated {
		t.Errorf("nobody answered: %+v", u)
	}
}

func TestWhatEndsAStreamEndsItForWhoeverLeavesThen(t *testing.T) {
	for name, stream := range map[string]string{"chat": chatStream, "messages": messagesStream, "responses": responsesStream} {
		m := model.NewMeter(events)
		fmt.Fprint(m, stream)
		if _, estimated := asked(t).Took(m, false); estimated || !m.Done() {
			t.Errorf("%s: the provider had said all", name)
		}
	}
}

func TestSeveralFiguresCountOnceAndTheLargest(t *testing.T) {
	m := model.NewMeter(events)
	for _, n := range []string{"5", "7", "6", "999999999999999999999999999999", "0", "-3"} {
		fmt.Fprintf(m, "data: {\"usage\":{\"prompt_tokens\":%s,\"completion_tokens\":%s}}\n\n", n, n)
	}
	u, _ := asked(t).Took(m, true)
	if u.Input != 1<<30 || u.Output != 1<<30 {
		t.Errorf("%+v", u)
	}
}

// FuzzMeter: whatever the answer, and wherever it is cut into parts, the figures are the same, none is
// below nothing, and nothing breaks.
func FuzzMeter(f *testing.F) {
	for _, body := range []string{chatStream, messagesStream, responsesStream, strings.ReplaceAll(chatStream, "\n", "\r\n"), `{"usage":{"prompt_tokens":19,"completion_tokens":10}}`, "]]}}\"\\", "data"} {
		f.Add(body, true, uint(7))
		f.Add(body, false, uint(1))
	}
	// Made once: what New does with its maps is new to the fuzzer each time, and it would minimize inputs for a minute each.
	c := asked(f)
	f.Fuzz(func(t *testing.T, body string, ended bool, size uint) {
		for _, kind := range []string{events, "application/json"} {
			whole, parts := model.NewMeter(kind), model.NewMeter(kind)
			fmt.Fprint(whole, body)
			for i, step := 0, int(size%64)+1; i < len(body); i += step {
				fmt.Fprint(parts, body[i:min(i+step, len(body))])
			}
			one, oneEstimated := c.Took(whole, ended)
			other, otherEstimated := c.Took(parts, ended)
			if one != other || oneEstimated != otherEstimated || whole.Done() != parts.Done() {
				t.Fatalf("%s in parts of %d: %+v, %+v", kind, size%64+1, one, other)
			}
			if one.Input < 0 || one.CacheRead < 0 || one.CacheWrite < 0 || one.Output < 0 || one.Tokens() <= 0 {
				t.Fatalf("%+v", one)
			}
		}
	})
}

func BenchmarkMeter(b *testing.B) {
	event := "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"small\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},\"finish_reason\":null}],\"usage\":null}\n\n"
	for _, x := range []struct{ name, kind, body string }{
		{"stream", events, strings.Repeat(event, 1024/len(event)+1)[:1024]},
		{"json", "application/json", `{"choices":[{"message":{"content":"` + strings.Repeat("text ", 1024/5) + `"}}]}`},
	} {
		b.Run(x.name, func(b *testing.B) {
			m, body := model.NewMeter(x.kind), []byte(x.body)
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				m.Write(body)
			}
		})
	}
}

func BenchmarkDecide(b *testing.B) {
	g := newGuard(b, policy(model.OpenAIChat))
	for _, size := range []int{1 << 10, 16 << 10} {
		body := []byte(`{"model":"small","stream":true,"messages":[{"role":"user","content":"` + strings.Repeat("some text\\n", size/11) + `"}]}`)
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, d := g.Decide(asJSON, body); d.Denied() {
					b.Fatal(d)
				}
			}
		})
	}
}
