package config

import (
	"regexp"
	"slices"
	"strings"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/budget"
	"github.com/moat-gateway/moat/guard/model"
)

// modelPrices are what a million tokens of a model cost, in the currency of the budgets.
type modelPrices struct {
	// Input, and what the provider adds to it.
	Input price `yaml:"input,required"`
	// Output, reasoning included.
	Output price `yaml:"output,required"`
	// Input that the provider had kept from an earlier call. Without it that costs what any input does.
	Cached price `yaml:"cached"`
	// Input that the provider is asked to keep, by `cache_control`: the dearest kind that it has. Without it such calls are refused.
	CacheWrite price `yaml:"cache_write"`
}

// modelPolicy is what calls may ask of a provider of language models. It holds on routes whose
// `model` says the api, there or in the policy.
type modelPolicy struct {
	// What the upstream speaks on this route: OpenAI's chat completions, as most servers of models do, its completions of a text, its responses, or Anthropic's messages.
	API string `yaml:"api" enum:"openai-chat openai-completions openai-responses anthropic-messages"`
	// The names of the models that may be called. Without any: all that stand under models.
	Models []string `yaml:"models,single"`
	// The most tokens that a call may ask for, in all its answers together, reasoning included. A call that says
	// nothing of it is given this bound.
	MaxTokens int `yaml:"max_tokens" range:"1 1000000000"`
	// The only field that bounds an answer, for servers that read one of the two of chat completions. Auto accepts both, and gives a call without one
	// `max_completion_tokens`.
	MaxTokensField string `yaml:"max_tokens_field" default:"auto" enum:"auto max_tokens max_completion_tokens"`
	// The most that the input of a call may be. It is counted by its bytes, of which a token has one or more: text in English has about four.
	MaxInputTokens int `yaml:"max_input_tokens" range:"1 1000000000"`
	// Asks for the provider's figures in streams of chat and completions, by `stream_options.include_usage`, where a call does not. Without figures a call is charged
	// with the most that it could cost.
	AskForUsage bool `yaml:"ask_for_usage" default:"true"`
	// Further fields of a call, further types of its items and parts, and further values of `anthropic-beta`, that may pass. They are counted by their bytes,
	// whatever they cost.
	Fields []string `yaml:"fields,single"`
	// The types of tools that the provider runs and that may be asked for. What they cost is in no bound.
	Tools []string `yaml:"tools,single"`
	// The types of parts with media and files that may pass, such as `image_url`, and the most tokens that each takes.
	Media map[string]mediaPart `yaml:"media" keys:"^[A-Za-z0-9_.-]{1,64}$"`
}

// mediaPart is what a part with media takes. A number in its place is its tokens.
type mediaPart struct {
	// The most tokens that one takes.
	Tokens int `yaml:"tokens,required,short" range:"1 1000000000"`
}

// price is what a million tokens cost, in billionths of the currency's unit.
type price int64

var pricePattern = regexp.MustCompile(`^[0-9.]+$`)

func parsePrice(s string, _ field) (any, string) {
	m, err := budget.ParseMoney(s)
	switch {
	case !pricePattern.MatchString(s) || err != nil:
		return nil, "not a price; write what a million tokens cost, such as 0.25"
	case m > model.MaxPrice:
		return nil, "a million tokens cost 10000 at most"
	}
	return price(m), ""
}

// model judges what calls may ask of models on a route. It is nil if the route's upstream is not
// said to be a provider of such.
func (c *compiler) model(r *route, where func(field string) string) *model.Policy {
	m := &r.Override.Model
	if m.API == "" {
		if at := where("model"); c.has(at) && c.clean(at) {
			c.fault(join(at, "api"), "", "missing, where "+r.label()+" follows it; write what the upstream speaks: openai-chat, openai-completions, openai-responses or anthropic-messages")
		}
		return nil
	}
	api, _ := model.ParseAPI(m.API)
	p := &model.Policy{
		API: api, Models: make(map[string]model.Price), MaxTokens: int64(m.MaxTokens), MaxInputTokens: int64(m.MaxInputTokens),
		AskForUsage: m.AskForUsage, Fields: m.Fields, Tools: m.Tools, Media: make(map[string]int64),
	}
	if m.MaxTokensField != "auto" {
		p.LimitField = m.MaxTokensField
	}
	for name, part := range m.Media {
		p.Media[name] = int64(part.Tokens)
	}
	names := m.Models
	if len(names) == 0 {
		names = keys(c.f.Models)
	}
	for i, name := range names {
		if len(m.Models) > 0 {
			refer(c, item(where("model.models"), i), "models", name, c.f.Models)
		}
		prices, ok := c.f.Models[name]
		if !ok {
			continue
		}
		c.used[join("models", name)] = true
		at := join("models", name)
		price := model.Price{Input: int64(prices.Input), Output: int64(prices.Output), CacheRead: int64(prices.Input), CacheWrite: int64(prices.CacheWrite)}
		if c.has(join(at, "cached")) {
			price.CacheRead = int64(prices.Cached)
		}
		if prices.Cached > prices.Input && c.clean(at) && c.once(at+" cached", false) {
			c.fault(join(at, "cached"), "", "costs more than input that is not")
		}
		p.Models[name] = price
	}
	if len(c.f.Models) == 0 && c.clean("models") && c.once("models missing", false) {
		c.fault("models", "", "missing; name the models that may be called, and what a million tokens of each cost, such as NAME: {input: 0.25, output: 2}")
	}
	if m.MaxTokens == 0 && c.clean(where("model.max_tokens")) {
		c.fault(where("model.max_tokens"), "", "missing; write the most tokens that a call may ask for")
	}
	c.modelMethods(r, where("methods"), where("match"))
	if r.Override.Modes.Budget == guard.Off {
		c.warn(where("modes.budget"), "off", "calls to models are neither bounded nor counted here")
	}
	if api == 0 || len(p.Models) == 0 || p.MaxTokens == 0 {
		return p
	}
	_, err := model.New(*p)
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range several.Unwrap() {
			name, reason, _ := strings.Cut(one.Error(), ": ")
			c.fault(where("model."+name), "", reason)
		}
	}
	return p
}

// modelMethods has a route of calls to models take POST alone.
func (c *compiler) modelMethods(r *route, methods, match string) {
	method, _, _ := cutPattern(r.Match)
	if method == "POST" || method == "" && slices.Equal(r.Override.Methods, []string{"POST"}) {
		return
	}
	at, value := methods, ""
	if method != "" {
		at, value = match, r.Match
	}
	c.fault(at, value, "a call to a model is a POST; write match: POST and the path, or methods: [POST]")
}
