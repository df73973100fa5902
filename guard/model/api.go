package model

import (
	"fmt"
	"strings"
)

// API is what a provider's endpoint speaks.
type API uint8

const (
	// OpenAIChat is OpenAI's chat completions, as most servers of models offer it.
	OpenAIChat API = iota + 1
	// OpenAICompletions is OpenAI's completions of a text, which came before chat's.
	OpenAICompletions
	// OpenAIResponses is OpenAI's responses.
	OpenAIResponses
	// AnthropicMessages is Anthropic's messages.
	AnthropicMessages
)

var apiNames = [...]string{OpenAIChat: "openai-chat", OpenAICompletions: "openai-completions", OpenAIResponses: "openai-responses", AnthropicMessages: "anthropic-messages"}

func (a API) String() string {
	if a > 0 && int(a) < len(apiNames) {
		return apiNames[a]
	}
	return fmt.Sprintf("API(%d)", uint8(a))
}

// ParseAPI reads what String has written.
func ParseAPI(s string) (API, bool) {
	for i, n := range apiNames {
		if n == s && s != "" {
			return API(i), true
		}
	}
	return 0, false
}

// rule is what a field means to what a call costs. The zero rule refuses.
type rule uint8

const (
	_       rule = iota
	plain        // text, or says how the answer is to be: its bytes bound what it costs
	shape        // so does this, and the provider puts instructions of its own beside it
	theName      // of the model
	limit        // of the answer, in tokens
	choices      // how many answers, shown or only made
	prompts      // a text or the numbers of its tokens, or a list of such, each of which is answered
	stream       // whether the answer is a stream
	streamOptions
	tools   // a list of tools
	content // text, or a list of messages, items or parts
	off     // only false, null or an empty list: it would bring in what is not in the call
	tier    // of service: not the dear ones
	textOnly
	cache // has the provider keep the input, at a price of its own
)

// grammar is what the calls of an API may hold whose cost is bounded by their bytes.
type grammar struct {
	// limits are the fields that bound the answer; the first is the one that moat puts in.
	limits []string
	fields map[string]rule
	// members are those of messages, items and parts, types are the types of such, and tools
	// those of tools that the caller runs.
	members, types, tools map[string]rule
}

// words are names, separated by blanks, and what they mean.
func words(of map[rule]string) map[string]rule {
	m := make(map[string]rule)
	for r, names := range of {
		for name := range strings.FieldsSeq(names) {
			m[name] = r
		}
	}
	return m
}

// The names are those of the providers' references, as of November 2026. What is newer is refused
// until the operator allows it by name.
var grammars = [...]grammar{
	OpenAIChat: {
		limits: []string{"max_completion_tokens", "max_tokens"},
		fields: words(map[rule]string{
			plain: "temperature top_p stop presence_penalty frequency_penalty logit_bias logprobs top_logprobs seed user safety_identifier " +
				"prompt_cache_key tool_choice parallel_tool_calls function_call reasoning_effort verbosity metadata",
			shape:   "response_format functions",
			theName: "model", limit: "max_completion_tokens max_tokens", choices: "n", stream: "stream", streamOptions: "stream_options",
			tools: "tools", content: "messages", tier: "service_tier", textOnly: "modalities",
			off: "store web_search_options prediction audio",
		}),
		members: words(map[rule]string{
			plain:   "role name text refusal annotations tool_calls tool_call_id function_call reasoning_content",
			content: "content",
		}),
		types: words(map[rule]string{plain: "text refusal"}),
		tools: words(map[rule]string{plain: "function custom"}),
	},
	OpenAICompletions: {
		limits: []string{"max_tokens"},
		fields: words(map[rule]string{
			plain:   "suffix temperature top_p stop presence_penalty frequency_penalty logit_bias logprobs seed user metadata",
			theName: "model", limit: "max_tokens", choices: "n best_of", stream: "stream", streamOptions: "stream_options",
			prompts: "prompt", tier: "service_tier",
			off: "echo store",
		}),
	},
	OpenAIResponses: {
		limits: []string{"max_output_tokens"},
		fields: words(map[rule]string{
			// Nothing in stream_options is about figures here, which come in any case.
			plain: "temperature top_p tool_choice parallel_tool_calls max_tool_calls reasoning truncation metadata user safety_identifier " +
				"prompt_cache_key top_logprobs include stream_options",
			shape:   "text",
			theName: "model", limit: "max_output_tokens", stream: "stream",
			tools: "tools", content: "input instructions", tier: "service_tier",
			off: "store background previous_response_id conversation prompt context_management",
		}),
		members: words(map[rule]string{
			plain:   "role id status phase text refusal annotations logprobs call_id name arguments input",
			content: "content output",
		}),
		types: words(map[rule]string{
			plain: "message input_text output_text refusal function_call function_call_output custom_tool_call custom_tool_call_output",
		}),
		tools: words(map[rule]string{plain: "function custom"}),
	},
	AnthropicMessages: {
		limits: []string{"max_tokens"},
		fields: words(map[rule]string{
			plain:   "temperature top_p top_k stop_sequences tool_choice thinking metadata",
			shape:   "output_format output_config",
			theName: "model", limit: "max_tokens", stream: "stream",
			tools: "tools", content: "messages system", tier: "service_tier", cache: "cache_control",
			off: "mcp_servers container context_management",
		}),
		members: words(map[rule]string{
			plain:   "role text id name input tool_use_id is_error citations title source",
			content: "content", cache: "cache_control",
		}),
		types: words(map[rule]string{plain: "text tool_use tool_result search_result"}),
		tools: words(map[rule]string{plain: "custom"}),
	},
}
