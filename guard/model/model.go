// Package model reads calls to language models and their answers: what a call may cost at most,
// before it is made, and what it has cost, by the provider's own figures, while the answer passes.
//
// It protects whoever pays for the model. A call is refused whose cost cannot be bounded by what
// is in it: another model, more tokens than are offered, tools that the provider runs, media, files
// and earlier conversations that the provider keeps, and whatever is not known here. A call
// without a bound of its own gets the route's.
//
// It believes the provider's figures, and its word that it stops at the bound. It does not read
// what is said: prompts and answers are counted and never kept. Who may call, and how much
// in all, is for other guards.
package model

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/moat-gateway/moat/guard"
)

// A token of a byte-level tokenizer stands for one byte at least, and the JSON around a message is
// longer than what the provider puts around it. Beyond that a provider adds instructions of its
// own: to any call, and more to one with tools or with a schema for the answer. The numbers are
// above what the providers document.
const (
	callTokens  = 256
	shapeTokens = 1024
)

// Policy is which calls a route passes on, and what they cost.
type Policy struct {
	API API
	// Models are offered, by their exact names; no other is.
	Models map[string]Price
	// MaxTokens is the most that a call may ask for, in all its answers together.
	MaxTokens int64
	// MaxInputTokens is the most that a call's input may be; 0 leaves that to the size of the
	// body. Input is counted by its bytes, which is the most tokens that it can be.
	MaxInputTokens int64
	// LimitField is the only field that may bound an answer, for servers that know one of
	// several; "" accepts each that the API has.
	LimitField string
	// AskForUsage has streams of chat and completions end with the provider's figures.
	AskForUsage bool
	// Fields are further fields, further types of items and parts, and further values of the header
	// of beta features, that may pass. They are counted by their bytes.
	Fields []string
	// Tools are the types of tools that the provider runs and that are allowed. What they cost is
	// in no bound.
	Tools []string
	// Media are the types of parts whose bytes do not bound what they cost, and the most tokens
	// that each can take.
	Media map[string]int64
}

// Guard is a compiled Policy: immutable, and safe for concurrent use.
type Guard struct {
	p             Policy
	grammar       *grammar
	fields, tools map[string]bool
	offered       string
}

// New compiles a Policy, or says everything that is wrong with it.
func New(p Policy) (*Guard, error) {
	var errs []error
	if p.API == 0 || int(p.API) >= len(grammars) {
		return nil, fmt.Errorf("api: %v is none of %s", p.API, strings.Join(apiNames[1:], ", "))
	}
	g := &Guard{p: p, grammar: &grammars[p.API], fields: make(map[string]bool), tools: make(map[string]bool)}
	g.offered = strings.Join(slices.Sorted(maps.Keys(p.Models)), ", ")
	if len(p.Models) == 0 {
		errs = append(errs, errors.New("models: none, so every call would be refused"))
	}
	for name, price := range p.Models {
		if price.CacheRead > price.Input {
			errs = append(errs, fmt.Errorf("models: %s: what is read from the cache costs more than what is not", name))
		}
		for _, n := range []int64{price.Input, price.Output, price.CacheRead, price.CacheWrite} {
			if n < 0 || n > MaxPrice {
				errs = append(errs, fmt.Errorf("models: %s: a price is from 0 to 10000 for a million tokens", name))
				break
			}
		}
	}
	if p.MaxTokens < 1 || p.MaxTokens > maxFigure {
		errs = append(errs, fmt.Errorf("max_tokens: %d is not from 1 to %d", p.MaxTokens, maxFigure))
	}
	if p.MaxInputTokens < 0 {
		errs = append(errs, errors.New("max_input_tokens: less than nothing"))
	}
	if p.LimitField != "" && !slices.Contains(g.grammar.limits, p.LimitField) {
		errs = append(errs, fmt.Errorf("max_tokens_field: %q is none of %s, which %s has", p.LimitField, strings.Join(g.grammar.limits, ", "), p.API))
	}
	for name, n := range p.Media {
		if n < 1 || n > maxFigure {
			errs = append(errs, fmt.Errorf("media: %s: %d tokens are not from 1 to %d", name, n, maxFigure))
		}
		if g.grammar.types[name] != 0 {
			errs = append(errs, fmt.Errorf("media: %s: is text, which is counted by its bytes", name))
		}
	}
	for _, name := range p.Fields {
		switch r := g.grammar.fields[name]; r {
		case 0, off, tier, textOnly, plain, shape, content:
			g.fields[name] = true
		case theName, limit, choices, prompts, stream, streamOptions, tools, cache:
			errs = append(errs, fmt.Errorf("fields: %s: is bounded by a setting of its own", name))
		}
	}
	for _, name := range p.Tools {
		g.tools[name] = true
	}
	return g, errors.Join(errs...)
}

// Call is one that may be made.
type Call struct {
	// Body is what the provider gets: the client's, with what was missing put in.
	Body []byte
	// Model is the one that is asked for.
	Model string
	// Most is the most that it can take.
	Most Usage

	price Price
}

// Cost is what the tokens cost with the call's model, in billionths of the currency's unit.
func (c *Call) Cost(u Usage) int64 { return c.price.Cost(u) }

// Decide judges a call by its request's head and its whole body, which it does not change. It
// returns the call, or why it is refused.
func (g *Guard) Decide(h http.Header, body []byte) (*Call, guard.Decision) {
	if d := g.head(h); d.Denied() {
		return nil, d
	}
	if !utf8.Valid(body) {
		return nil, unreadable("not UTF-8")
	}
	w := walk{reader: reader{b: body}, g: g, n: 1}
	w.object(w.field)
	end := w.i - 1
	if w.peek(); w.i < len(w.b) {
		w.fail("something follows the object")
	}
	if w.denied.Denied() {
		return nil, w.denied
	}
	if w.why != "" {
		return nil, unreadable(w.why)
	}
	return w.call(end)
}

func unreadable(why string) guard.Decision {
	return guard.Denial(guard.ModelRequestUnreadable, "body", why, "one JSON object of the API")
}

func notAllowed(where, got, want string) guard.Decision {
	return guard.Denial(guard.ModelFieldNotAllowed, where, got, want)
}

// head judges the headers that say how the body is to be read, and those that change what it
// means or who pays.
func (g *Guard) head(h http.Header) guard.Decision {
	kind, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if charset := params["charset"]; err != nil || kind != "application/json" || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return guard.Denial(guard.ModelRequestUnreadable, "Content-Type", h.Get("Content-Type"), "application/json, in UTF-8")
	}
	if n := len(h["Content-Type"]); n > 1 {
		return guard.Denial(guard.ModelRequestUnreadable, "Content-Type", "several", "one")
	}
	for _, coding := range h["Content-Encoding"] {
		if coding != "" && !strings.EqualFold(coding, "identity") {
			return guard.Denial(guard.ModelRequestUnreadable, "Content-Encoding", coding, "no coding")
		}
	}
	for _, name := range []string{"Anthropic-Beta", "Openai-Beta"} {
		for _, line := range h[name] {
			for value := range strings.SplitSeq(line, ",") {
				if value = strings.Trim(value, " \t"); value != "" && !g.fields[value] {
					return notAllowed(name, value, "a feature that the route's model.fields name, or no such header")
				}
			}
		}
	}
	for _, name := range []string{"Openai-Organization", "Openai-Project"} {
		if h[name] != nil {
			return notAllowed(name, "", "no such header: who pays is not the caller's to say")
		}
	}
	return guard.Decision{}
}

// walk is one call while it is read.
type walk struct {
	reader
	g      *Guard
	denied guard.Decision
	at     string // the field that is read

	model          string
	n              int64  // answers to each prompt
	prompts        int64  // if there are several
	most           int64  // the largest bound in the call; 0 if there is none
	mostAt         string // and the field that says so
	stream, shaped bool
	cached         bool
	media, skipped int64 // tokens of media, and bytes of the body that are counted so
	usage          bool  // it asks for figures
	// bound and ask are what would have the call say so where it does not.
	bound, ask edit
}

// edit puts a text in the place of what stands in the body from there to there.
type edit struct {
	from, to int
	text     string
}

func (w *walk) deny(d guard.Decision) {
	if !w.denied.Denied() && w.why == "" {
		w.denied = d
	}
	w.fail("denied")
}

// field reads the value of one of the call's fields.
func (w *walk) field(name []byte) {
	if w.why != "" {
		return
	}
	w.at = string(name)
	begin := w.peek()
	r := w.g.grammar.fields[w.at]
	if w.g.fields[w.at] && r != content {
		r = plain
	}
	switch r {
	case plain:
		w.skip()
	case shape:
		w.shaped = w.shaped || begin != 'n'
		w.skip()
	case theName:
		w.model = string(w.text())
	case limit:
		w.limit()
	case choices:
		if n, ok := w.count(); ok {
			w.n = max(w.n, n)
		}
	case prompts:
		w.prompt()
	case stream:
		w.stream = w.flag()
	case streamOptions:
		w.streamOptions()
	case tools:
		if !w.null() {
			w.shaped = true
			w.array(w.tool)
		}
	case content:
		w.content()
	case off:
		const want = "no such field, or model.fields with its name"
		switch begin {
		case 'n', 'f':
			w.literal()
		case '[':
			w.array(func() { w.refuse("", want) })
		default:
			w.refuse("", want)
		}
	case tier:
		if !w.null() {
			switch s := string(w.text()); s {
			case "auto", "default", "flex", "standard_only":
			default:
				w.refuse(s, "auto, default, flex or standard_only")
			}
		}
	case textOnly:
		if !w.null() {
			w.array(func() {
				if s := string(w.text()); s != "text" {
					w.refuse(s, "text")
				}
			})
		}
	case cache:
		w.caches()
	default:
		w.refuse("", "a field of "+w.g.p.API.String()+" that only shapes text, or model.fields with its name")
	}
}

// refuse denies what stands in the field that is read.
func (w *walk) refuse(got, want string) {
	where := "/" + w.at
	if got == "" {
		where, got = "body", w.at
	}
	w.deny(notAllowed(where, got, want))
}

// count reads a whole number from 1. A null is none. What other parsers could read otherwise, such
// as 8e2, or take for no bound at all, such as -1, is none either.
func (w *walk) count() (n int64, ok bool) {
	if w.null() {
		return 0, false
	}
	word := w.literal()
	if w.why != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(string(word), 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) || n < 1 {
		w.deny(guard.Denial(guard.ModelRequestUnreadable, "/"+w.at, string(word), "a whole number from 1"))
		return 0, false
	}
	return min(n, maxFigure), true
}

// limit reads a bound of the answer.
func (w *walk) limit() {
	if only := w.g.p.LimitField; only != "" && only != w.at {
		if !w.null() {
			w.refuse("", "the bound in "+only)
		}
		return
	}
	w.peek()
	from := w.i
	if n, ok := w.count(); ok {
		if n > w.most {
			w.most, w.mostAt = n, w.at
		}
	} else if w.at == w.g.limitField() {
		w.bound.from, w.bound.to = from, w.i // a null: another field of that name may not stand beside it
	}
}

// limitField is the one that is put in where a call has none.
func (g *Guard) limitField() string {
	if g.p.LimitField != "" {
		return g.p.LimitField
	}
	return g.grammar.limits[0]
}

// prompt counts the texts that are to be answered. Numbers are the tokens of one.
func (w *walk) prompt() {
	if w.peek() != '[' {
		w.piece()
		return
	}
	var numbers int64
	w.array(func() {
		if !w.piece() {
			numbers = 1
		} else if w.prompts++; w.prompts > maxFigure {
			w.fail("too many prompts")
		}
	})
	w.prompts += numbers
}

// piece reads a text, a list of numbers, or a number, and reports whether it is one of the first two.
func (w *walk) piece() bool {
	switch w.peek() {
	case '"':
		w.quoted()
	case '[':
		w.array(func() { w.literal() })
	case '{':
		w.refuse("an object", "text or numbers")
	default:
		w.literal()
		return false
	}
	return true
}

func (w *walk) flag() bool {
	word := string(w.literal())
	if w.why == "" && word != "true" && word != "false" && word != "null" {
		w.deny(guard.Denial(guard.ModelRequestUnreadable, "/"+w.at, word, "true or false"))
	}
	return word == "true"
}

func (w *walk) streamOptions() {
	from := w.i
	if w.null() {
		w.ask = edit{from, w.i, "{" + askForUsage + "}"}
		return
	}
	empty, said := true, false
	w.object(func(name []byte) {
		empty = false
		if string(name) != "include_usage" {
			w.skip()
			return
		}
		w.peek()
		from = w.i
		w.usage, said = w.flag(), true
		w.ask = edit{from, w.i, "true"}
	})
	switch {
	case said:
	case empty:
		w.ask = edit{w.i - 1, w.i - 1, askForUsage}
	default:
		w.ask = edit{w.i - 1, w.i - 1, "," + askForUsage}
	}
}

// askForUsage has a stream end with the provider's figures.
const askForUsage = `"include_usage":true`

func (w *walk) caches() {
	if !w.null() {
		w.cached = true
		w.skip()
	}
}

// tool reads one of the tools, whose own names and schemas are the caller's.
func (w *walk) tool() {
	kind, typed := "", false
	w.object(func(name []byte) {
		switch {
		case string(name) == "type":
			kind, typed = string(w.text()), true
		case string(name) == "cache_control":
			w.caches()
		case strings.EqualFold(string(name), "type"): // some servers read names without regard to case
			w.refuse(string(name), "type")
		default:
			w.skip()
		}
	})
	if w.why != "" || w.g.tools[kind] || w.g.grammar.tools[kind] != 0 || !typed && w.g.p.API == AnthropicMessages {
		return
	}
	w.refuse("type "+kind, "a tool that the caller runs, or model.tools with its type")
}

// content reads text, or lists of messages, items and parts.
func (w *walk) content() {
	switch w.peek() {
	case '[':
		w.array(w.content)
	case '{':
		w.item()
	default:
		w.skip()
	}
}

// item reads a message, an item or a part. What it is may be said at its end.
func (w *walk) item() {
	from, said := w.i, 0 // said are the bytes of what is text beside media, and counted as such
	kind, typed, message, stranger := "", false, false, ""
	w.object(func(name []byte) {
		w.peek()
		at, media := w.i, false
		r := w.g.grammar.members[string(name)]
		message = message || string(name) == "content" && w.peek() != 'n'
		switch {
		case string(name) == "type":
			kind, typed = string(w.text()), true
		case r == content:
			w.content()
		case r == cache:
			w.caches()
		case r == plain && string(name) == "source":
			skipped := w.skipped
			if media = w.source(); media {
				w.skipped = skipped // all of it is skipped below
			}
		case r == plain:
			w.skip()
		case (respelt(name) || string(name) == "cache_control") && !w.g.fields[string(name)]:
			w.refuse(string(name), "a part's own members, in small letters")
		case !w.null():
			if stranger == "" && !w.g.fields[string(name)] {
				stranger = string(name)
			}
			media = string(name) != "context"
			w.skip()
		}
		if !media && string(name) != "type" {
			said += w.i - at
		}
	})
	if w.why != "" {
		return
	}
	if n := w.g.p.Media[kind]; typed && n > 0 {
		w.media, w.skipped = min(w.media+n, maxFigure), w.skipped+int64(w.i-from-said)
		return
	}
	switch {
	case w.g.p.API == OpenAIResponses && !typed && !message:
		w.refuse("an item without type and content", "a type, or content: what has only an id is an earlier item that the provider keeps")
	case typed && w.g.fields[kind]:
	case typed && w.g.grammar.types[kind] == 0:
		w.refuse("type "+kind, "text; or model.media with the type and its tokens, or model.fields with the type")
	case stranger != "":
		w.refuse(stranger, "a member that only shapes text, or model.fields with its name")
	}
}

// source reads where a part's media are, and reports whether they are media: text and lists of parts are
// counted as such.
func (w *walk) source() bool {
	if w.peek() != '{' {
		w.skip()
		return false
	}
	kind := ""
	w.object(func(name []byte) {
		switch {
		case string(name) == "type" && w.peek() == '"':
			kind = string(w.text())
		case string(name) == "content":
			w.content()
		case respelt(name):
			w.refuse(string(name), "a source's own members, in small letters")
		default:
			w.skip()
		}
	})
	return kind != "text" && kind != "content"
}

// respelt reports whether a server that reads names without regard to case could take one of a part, all of which
// providers write in small letters, for another.
func respelt(name []byte) bool {
	return bytes.ContainsFunc(name, func(c rune) bool { return c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' })
}

// call is what has been read, held to the policy. The object ends at end.
func (w *walk) call(end int) (*Call, guard.Decision) {
	p := &w.g.p
	price, ok := p.Models[w.model]
	if !ok {
		return nil, guard.Denial(guard.ModelNotAllowed, "/model", w.model, w.g.offered)
	}
	if w.cached && price.CacheWrite == 0 {
		return nil, notAllowed("body", "cache_control", "no such field, or the model's price of cache_write")
	}
	answers := min(w.n*max(w.prompts, 1), maxFigure)
	var edits []edit
	if w.most == 0 {
		w.most = p.MaxTokens / answers
		edits = append(edits, w.bound.or(end, w.g.limitField(), "", strconv.FormatInt(w.most, 10)))
	}
	if w.most < 1 || w.most*answers > p.MaxTokens {
		return nil, guard.Denial(guard.ModelTokensTooMany, "/"+cmp.Or(w.mostAt, "n"), fmt.Sprintf("%d, in %d answers", w.most, answers), fmt.Sprintf("at most %d in all", p.MaxTokens))
	}
	if w.g.grammar.fields["stream_options"] == streamOptions && w.stream && p.AskForUsage && !w.usage {
		edits = append(edits, w.ask.or(end, "stream_options", w.ask.text, "{"+askForUsage+"}"))
	}
	c := &Call{Body: w.edited(edits), Model: w.model, price: price}
	c.Most = Usage{Input: int64(len(w.b)) - w.skipped + w.media + callTokens, Output: w.most * answers}
	if w.shaped {
		c.Most.Input += shapeTokens
	}
	if p.MaxInputTokens > 0 && c.Most.Input > p.MaxInputTokens {
		return nil, guard.Denial(guard.ModelTokensTooMany, "body", fmt.Sprintf("up to %d tokens of input", c.Most.Input), fmt.Sprintf("at most %d", p.MaxInputTokens))
	}
	if w.cached && price.CacheWrite > price.Input {
		c.Most.Input, c.Most.CacheWrite = 0, c.Most.Input
	}
	return c, guard.Decision{}
}

// or is the edit with that text; or, if there is no place for it, one that puts the field in at the object's end.
func (e edit) or(end int, name, text, value string) edit {
	if e.to == 0 {
		return edit{end, end, `,"` + name + `":` + value}
	}
	return edit{e.from, e.to, cmp.Or(text, value)}
}

// edited is the body with the edits.
func (w *walk) edited(edits []edit) []byte {
	if len(edits) == 0 {
		return w.b
	}
	slices.SortStableFunc(edits, func(a, b edit) int { return a.from - b.from })
	out := make([]byte, 0, len(w.b)+128)
	last := 0
	for _, e := range edits {
		out = append(append(out, w.b[last:e.from]...), e.text...)
		last = e.to
	}
	return append(out, w.b[last:]...)
}
