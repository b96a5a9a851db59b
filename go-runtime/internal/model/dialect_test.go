package model

import "fmt"

func openAIDialect() dialect {
	chunk := func(delta, reason string) string {
		return `data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"answering-model","choices":[{"index":0,"delta":` +
			delta + `,"finish_reason":` + reason + `}]}`
	}
	whole := func(message, reason string) string {
		return `{"id":"c1","object":"chat.completion","created":1,"model":"answering-model","choices":[{"index":0,"message":` + message +
			`,"finish_reason":"` + reason + `"}],"usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18,` +
			`"prompt_tokens_details":{"cached_tokens":3},"completion_tokens_details":{"reasoning_tokens":2}}}`
	}
	usage := `data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"answering-model","choices":[],"usage":` +
		`{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18,"prompt_tokens_details":{"cached_tokens":3},` +
		`"completion_tokens_details":{"reasoning_tokens":2}}}`
	return dialect{
		provider: "openai-compatible", model: "openai/asked-model", key: "Bearer " + testKey,
		at: func(url string) Config {
			return Config{OpenAI: Endpoint{APIKey: testKey, BaseURL: url + "/v1"}, Models: []string{"openai/asked-model"}}
		},
		path: "/v1/chat/completions", streamPath: "/v1/chat/completions",
		text: whole(`{"role":"assistant","content":"Forty-two.","refusal":null}`, "stop"),
		stream: events(chunk(`{"role":"assistant","content":""}`, "null"), ": keep-alive", chunk(`{"content":"Forty"}`, "null"),
			chunk(`{"content":"-two."}`, "null"), chunk(`{}`, `"stop"`), usage, "data: [DONE]"),
		usage:        Usage{InputTokens: 11, OutputTokens: 7, TotalTokens: 18, CachedTokens: 3, ReasoningTokens: 2},
		finishReason: "stop",
		calls: whole(`{"role":"assistant","content":null,"tool_calls":[`+
			`{"id":"call-1","type":"function","function":{"name":"look","arguments":"{\"at\": \"sky\"}"}},`+
			`{"id":"","type":"function","function":{"name":"wait","arguments":"{}"}}]}`, "tool_calls"),
		callStream: events(
			chunk(`{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"call-1","type":"function","function":{"name":"look","arguments":""}}]}`, "null"),
			chunk(`{"tool_calls":[{"index":0,"function":{"arguments":"{\"at\": "}},{"index":1,"function":{"name":"wait","arguments":"{"}}]}`, "null"),
			chunk(`{"tool_calls":[{"index":1,"function":{"arguments":"}"}},{"index":0,"function":{"arguments":"\"sky\"}"}}]}`, "null"),
			chunk(`{}`, `"tool_calls"`), usage, "data: [DONE]"),
		badCallStream: events(
			chunk(`{"tool_calls":[{"index":0,"id":"call-1","function":{"name":"look","arguments":"{\"at\": sky"}}]}`, "null"),
			chunk(`{}`, `"tool_calls"`), "data: [DONE]"),
		object: whole(`{"role":"assistant","content":"Here:\n{\"n\": 1}\nDone."}`, "stop"),
		constraint: func(body map[string]any) any {
			format, _ := body["response_format"].(map[string]any)
			described, _ := format["json_schema"].(map[string]any)
			return described["schema"]
		},
		truncated: whole(`{"role":"assistant","content":"Forty"}`, "length"),
		refusal:   whole(`{"role":"assistant","content":null,"refusal":"`+payload+`"}`, "stop"),
		filtered:  whole(`{"role":"assistant","content":""}`, "content_filter"),
		empty:     whole(`{"role":"assistant","content":""}`, "stop"),
		midStream: events(chunk(`{"content":"Forty"}`, "null"),
			`data: {"error":{"message":"`+payload+` `+testKey+`","type":"server_error","code":null}}`),
		midStreamLimit: events(`data: {"error":{"message":"` + payload + `","type":"requests","code":"rate_limit_exceeded"}}`),
		endsEarly:      events(chunk(`{"content":"Forty"}`, "null")),
		failure: func(code, message string) string {
			return fmt.Sprintf(`{"error":{"message":%q,"type":"error","param":null,"code":%q}}`, message, code)
		},
		broken:  "data: {\"id\":\n\n",
		limited: "rate_limit_exceeded", overloaded: "server_is_overloaded",
	}
}

func anthropicDialect() dialect {
	event := func(kind, rest string) string {
		return "event: " + kind + "\ndata: {\"type\":\"" + kind + "\"" + rest + "}"
	}
	whole := func(content, reason string) string {
		return `{"id":"msg_1","type":"message","role":"assistant","model":"answering-model","content":` + content + `,"stop_reason":"` + reason +
			`","stop_sequence":null,"usage":{"input_tokens":8,"cache_read_input_tokens":3,"cache_creation_input_tokens":0,` +
			`"output_tokens":7,"output_tokens_details":{"thinking_tokens":2}}}`
	}
	start := event("message_start", `,"message":{"id":"msg_1","type":"message","role":"assistant","model":"answering-model","content":[],`+
		`"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":8,"cache_read_input_tokens":3,"cache_creation_input_tokens":0,"output_tokens":1}}`)
	block := func(index int, kind string) string {
		return event("content_block_start", fmt.Sprintf(`,"index":%d,"content_block":%s`, index, kind))
	}
	delta := func(index int, what string) string {
		return event("content_block_delta", fmt.Sprintf(`,"index":%d,"delta":%s`, index, what))
	}
	stop := func(index int) string { return event("content_block_stop", fmt.Sprintf(`,"index":%d`, index)) }
	end := func(reason string) string {
		return event("message_delta", `,"delta":{"stop_reason":"`+reason+`","stop_sequence":null},"usage":{"output_tokens":7,"output_tokens_details":{"thinking_tokens":2}}`) +
			"\n\n" + event("message_stop", "")
	}
	text := `{"type":"text","text":""}`
	return dialect{
		provider: anthropicName, model: "anthropic/asked-model", key: testKey,
		at: func(url string) Config {
			return Config{Anthropic: Endpoint{APIKey: testKey, BaseURL: url}, Models: []string{"asked-model"}}
		},
		path: "/v1/messages", streamPath: "/v1/messages",
		text: whole(`[{"type":"text","text":"Forty-two."}]`, "end_turn"),
		stream: events(start, block(0, text), event("ping", ""), delta(0, `{"type":"text_delta","text":"Forty"}`),
			delta(0, `{"type":"text_delta","text":"-two."}`), stop(0), end("end_turn")),
		usage:        Usage{InputTokens: 11, OutputTokens: 7, TotalTokens: 18, CachedTokens: 3, ReasoningTokens: 2},
		finishReason: "end_turn",
		calls: whole(`[{"type":"thinking","thinking":"Hm.","signature":"c2ln"},{"type":"tool_use","id":"call-1","name":"look","input":{"at": "sky"}},`+
			`{"type":"tool_use","id":"","name":"wait","input":{}}]`, "tool_use"),
		callStream: events(start, block(0, `{"type":"thinking","thinking":"","signature":""}`), delta(0, `{"type":"thinking_delta","thinking":"Hm."}`),
			delta(0, `{"type":"signature_delta","signature":"c2ln"}`), stop(0),
			block(1, `{"type":"tool_use","id":"call-1","name":"look","input":{}}`), delta(1, `{"type":"input_json_delta","partial_json":""}`),
			delta(1, `{"type":"input_json_delta","partial_json":"{\"at\": "}`), delta(1, `{"type":"input_json_delta","partial_json":"\"sky\"}"}`), stop(1),
			block(2, `{"type":"tool_use","id":"","name":"wait","input":{}}`), stop(2), end("tool_use")),
		badCallStream: events(start, block(0, `{"type":"tool_use","id":"call-1","name":"look","input":{}}`),
			delta(0, `{"type":"input_json_delta","partial_json":"{\"at\": sky"}`), stop(0), end("tool_use")),
		object: whole(`[{"type":"text","text":"Here:\n{\"n\": 1}\nDone."}]`, "end_turn"),
		constraint: func(body map[string]any) any {
			config, _ := body["output_config"].(map[string]any)
			format, _ := config["format"].(map[string]any)
			return format["schema"]
		},
		truncated: whole(`[{"type":"text","text":"Forty"}]`, "max_tokens"),
		refusal:   whole(`[]`, "refusal"),
		filtered:  whole(`[{"type":"text","text":"`+payload+`"}]`, "refusal"),
		empty:     whole(`[]`, "end_turn"),
		midStream: events(start, block(0, text), delta(0, `{"type":"text_delta","text":"Forty"}`),
			"event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\""+payload+" "+testKey+"\"}}"),
		midStreamLimit: events(start, "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\",\"message\":\""+payload+"\"}}"),
		endsEarly:      events(start, block(0, text), delta(0, `{"type":"text_delta","text":"Forty"}`)),
		failure: func(code, message string) string {
			return fmt.Sprintf(`{"type":"error","error":{"type":%q,"message":%q},"request_id":"req_1"}`, code, message)
		},
		broken:  "event: message_delta\ndata: {\"type\":\n\n",
		limited: "rate_limit_error", overloaded: "overloaded_error",
	}
}

func geminiDialect() dialect {
	used := `"usageMetadata":{"promptTokenCount":11,"candidatesTokenCount":5,"thoughtsTokenCount":2,"totalTokenCount":18,"cachedContentTokenCount":3},` +
		`"modelVersion":"answering-model","responseId":"r1"`
	whole := func(parts, reason string) string {
		return `{"candidates":[{"content":{"role":"model","parts":` + parts + `},"finishReason":"` + reason + `","index":0}],` + used + `}`
	}
	piece := func(parts string) string {
		return `data: {"candidates":[{"content":{"role":"model","parts":` + parts + `},"index":0}],"modelVersion":"answering-model","responseId":"r1"}`
	}
	look := `{"functionCall":{"id":"call-1","name":"look","args":{"at":"sky"}},"thoughtSignature":"c2ln"}`
	wait := `{"functionCall":{"name":"wait","args":{}}}`
	return dialect{
		provider: geminiName, model: "gemini/asked-model", key: testKey,
		at: func(url string) Config {
			return Config{Gemini: Endpoint{APIKey: testKey, BaseURL: url}, Models: []string{"gemini/asked-model"}}
		},
		path:       "/v1beta/models/asked-model:generateContent",
		streamPath: "/v1beta/models/asked-model:streamGenerateContent?alt=sse",
		text:       whole(`[{"text":"Let me think.","thought":true},{"text":"Forty-two."}]`, "STOP"),
		stream: events(piece(`[{"text":"Let me think.","thought":true}]`), piece(`[{"text":"Forty"}]`),
			`data: `+whole(`[{"text":"-two."}]`, "STOP")),
		usage:        Usage{InputTokens: 11, OutputTokens: 7, TotalTokens: 18, CachedTokens: 3, ReasoningTokens: 2},
		finishReason: "STOP",
		calls:        whole(`[`+look+`,`+wait+`]`, "STOP"),
		callStream:   events(piece(`[`+look+`]`), piece(`[`+wait+`]`), `data: `+whole(`[{"text":""}]`, "STOP")),
		object:       whole(`[{"text":"Here:\n{\"n\": 1}\nDone."}]`, "STOP"),
		constraint: func(body map[string]any) any {
			config, _ := body["generationConfig"].(map[string]any)
			return config["responseJsonSchema"]
		},
		truncated: whole(`[{"text":"Forty"}]`, "MAX_TOKENS"),
		refusal:   `{"promptFeedback":{"blockReason":"PROHIBITED_CONTENT"},` + used + `}`,
		filtered:  whole(`[]`, "SAFETY"),
		empty:     whole(`[]`, "STOP"),
		midStream: events(piece(`[{"text":"Forty"}]`),
			`data: {"error":{"code":503,"message":"`+payload+` `+testKey+`","status":"UNAVAILABLE"}}`),
		midStreamLimit: events(`data: {"error":{"code":429,"message":"` + payload + `","status":"RESOURCE_EXHAUSTED"}}`),
		endsEarly:      events(piece(`[{"text":"Forty"}]`)),
		failure: func(code, message string) string {
			return fmt.Sprintf(`{"error":{"code":400,"message":%q,"status":%q}}`, message, code)
		},
		broken:  "data: {\"candidates\":\n\n",
		limited: "RESOURCE_EXHAUSTED", overloaded: "UNAVAILABLE",
	}
}
