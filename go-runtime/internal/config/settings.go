package config

import (
	"log/slog"
	"strings"
	"time"
)

// Config is everything the runtime can be told. Load fills it in.
type Config struct {
	// Listen is the TCP address of the gRPC server; empty: none.
	Listen string
	// Socket is the path of the gRPC server's Unix socket; empty: none.
	Socket string
	// HTTP is the TCP address of health, metrics and runs' events for browsers; empty: none.
	HTTP string

	// DataDir is the folder of the embedded store.
	DataDir string
	// NATSURL names an external cluster, in place of the embedded store; empty: embedded.
	NATSURL string
	// Replicas is how many servers of an external cluster keep each record.
	Replicas int
	// Durability is "fsync" or "os": when an embedded store counts a change as kept.
	Durability string
	// MaxStoreBytes limits the embedded store; 0: by the size of the disk.
	MaxStoreBytes int64

	// TLSCert and TLSKey are PEM files; both or neither.
	TLSCert string
	TLSKey  string
	// ClientCA is a PEM file with the authorities of client certificates; empty: none is asked for.
	ClientCA string
	// TokensFile lists who may call; see package token. Empty: whoever connects may.
	TokensFile string

	// MaxValueBytes limits a state value, an event's data and a run's input.
	MaxValueBytes int
	// MaxMessageBytes limits a gRPC message, either way.
	MaxMessageBytes int
	// RPCTimeout is the deadline of a call whose client set none; calls that wait for a run
	// get RunTimeout more.
	RPCTimeout time.Duration
	// SendTimeout is how long a stream waits for a reader that does not take a message.
	SendTimeout time.Duration

	// StreamOrigins are the sites whose pages may read runs' events on the HTTP address.
	StreamOrigins []string
	// StreamLimit is how many such readers there may be, StreamLimitPerUser how many of one user.
	StreamLimit        int
	StreamLimitPerUser int

	// MaxConcurrentRuns is how many runs execute at a time.
	MaxConcurrentRuns int
	// MaxQueuedRuns is how many runs may wait, of one namespace; one more is refused.
	// Where several have runs that wait, see engine.Config.
	MaxQueuedRuns int
	// MaxAttempts is how often a run is begun before it fails, unless it or its agent says otherwise.
	MaxAttempts int
	// RunTimeout is the longest one attempt may take, unless the run or its agent says otherwise.
	RunTimeout time.Duration
	// KeepRuns is how many ended runs are kept, the youngest, of those that failed or
	// timed out and of the others each; KeepRunsFor how long each is.
	KeepRuns    int
	KeepRunsFor time.Duration

	// WorkspaceMaxFiles, WorkspaceMaxFileBytes and WorkspaceMaxBytes are what the files of
	// one run may be; KeepFilesFor is how long they are kept after its end.
	WorkspaceMaxFiles                        int
	WorkspaceMaxFileBytes, WorkspaceMaxBytes int64
	KeepFilesFor                             time.Duration
	// KeepThreadsFor is after what time without a turn a thread of graphs is removed.
	KeepThreadsFor time.Duration
	// Sandbox is "auto", "require" or "off"; see package sandbox.
	Sandbox string
	// SandboxLauncher is the command of this program that is a sandbox's launcher. It is
	// no setting: the program says it. Empty: there is none.
	SandboxLauncher []string

	// EventMaxAge is how long events are kept; 0: forever.
	EventMaxAge time.Duration
	// EventMaxBytes is how much room events may take before the oldest go; 0: any.
	EventMaxBytes int64

	// DrainTimeout is how long a stop waits for calls and runs in flight.
	DrainTimeout time.Duration

	// LogLevel is the least level that is logged.
	LogLevel slog.Level
	// LogFormat is "json", "text", or "auto": text on a terminal, else json.
	LogFormat string

	// Models are the names of the language models, the next of which is asked where
	// one fails; empty: the provider's usual one.
	Models []string
	// OpenAIBaseURL is an OpenAI-compatible endpoint, the other two are gateways to the
	// providers' APIs; empty: their own.
	OpenAIBaseURL, AnthropicBaseURL, GeminiBaseURL string
	// OpenAIAPIKey, AnthropicAPIKey and GeminiAPIKey are secrets. Without any of them and
	// OpenAIBaseURL the offline model answers.
	OpenAIAPIKey, AnthropicAPIKey, GeminiAPIKey string
	// OpenAIAPIKeyFile and the others are files that hold the keys; empty: none.
	OpenAIAPIKeyFile, AnthropicAPIKeyFile, GeminiAPIKeyFile string
	// ModelTimeout is the longest one answer of the model may take.
	ModelTimeout time.Duration
	// ModelConcurrency is how many requests each provider is sent at a time.
	ModelConcurrency int

	// HTTPAgents are the agents that HTTP servers execute, by agent id.
	HTTPAgents map[string]HTTPAgent

	// DefinitionsDir is a folder of graphs and agents that every namespace sees; see definition.ReadFolder. Empty: none.
	DefinitionsDir string
	// TraceContent is "never", "asked" or "always": whether inputs and outputs go into spans.
	TraceContent string
	// TraceRedact are the names of JSON members whose values are masked there.
	TraceRedact []string
	// TraceURL is where traces are shown, with {trace_id} in it; empty: nowhere.
	TraceURL string
	// HTTPTools are the URLs below which HTTP tools may go; none: to every public address, without secrets.
	HTTPTools []string
	// ToolSecrets are what the headers of HTTP tools may refer to, with the file that
	// holds the secret; an empty one stands for the environment variable of that name.
	ToolSecrets map[string]string
	// MCPServers is the file of the MCP servers that agents may use; empty: there are none.
	MCPServers string
	// MCP makes an MCP server of the runtime, on the HTTP address.
	MCP bool

	// origins says where each setting's value came from, by name.
	origins map[string]string
}

// HTTPAgent is an agent that an HTTP server executes. What is zero holds for its
// runs as for those of any agent.
type HTTPAgent struct {
	URL string

	// How its runs are retried that do not say; see engine.RetryPolicy.
	MaxAttempts                int
	InitialBackoff, MaxBackoff time.Duration
	Multiplier                 float64
	// RunTimeout is the longest one attempt of such a run may take.
	RunTimeout time.Duration
}

// envPrefix goes before a setting's name in the environment.
const envPrefix = "AGENT_RUNTIME_"

// off turns off a setting that is an address or a path.
const off = "off"

// setting is one row of the table: a name, its default, what it means, and the
// field of a Config that it fills.
type setting struct {
	name     string
	fallback string
	help     string
	value    value
	// alias is another environment variable that gives the value when the setting's own does not.
	alias string
	// secret settings have no flag, because other users of the machine see flags, and are never printed.
	secret bool
}

// env returns the name of the setting's environment variable.
func (s setting) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
}

// settings returns the table, bound to c.
func settings(c *Config) []setting {
	return []setting{
		{
			name: "listen", fallback: "127.0.0.1:50051", value: (*addressValue)(&c.Listen),
			help: "`address` of the gRPC server, or off",
		},
		{
			name: "socket", fallback: off, value: (*socketValue)(&c.Socket),
			help: "`path` of the gRPC server's Unix socket, or off",
		},
		{
			name: "http", fallback: "127.0.0.1:8090", value: (*addressValue)(&c.HTTP),
			help: "`address` of /healthz, /readyz, /metrics and streams with a ticket, or off",
		},

		{
			name: "data-dir", fallback: "var/agent-runtime", value: (*textValue)(&c.DataDir),
			help: "`folder` of the embedded store",
		},
		{
			name: "nats-url", fallback: "", value: (*natsURLValue)(&c.NATSURL),
			help: "`url` of an external NATS cluster to use in place of the embedded store",
		},
		{
			name: "replicas", fallback: "3", value: &intValue{&c.Replicas, 1, 5},
			help: "`number` of servers of an external cluster that keep each record",
		},
		{
			name: "durability", fallback: "fsync", value: &choiceValue{&c.Durability, []string{"fsync", "os"}},
			help: "when a change counts as kept: fsync (on the disk) or os (with the operating system)",
		},
		{
			name: "max-store-bytes", fallback: "0", value: &bytesValue[int64]{&c.MaxStoreBytes, 0, 1 << 60},
			help: "`size` limit of what the embedded store holds; 0: by the size of the disk",
		},

		{
			name: "tls-cert", fallback: "", value: (*textValue)(&c.TLSCert),
			help: "PEM `file` of the server's certificate chain",
		},
		{
			name: "tls-key", fallback: "", value: (*textValue)(&c.TLSKey),
			help: "PEM `file` of the server's key",
		},
		{
			name: "client-ca", fallback: "", value: (*textValue)(&c.ClientCA),
			help: "PEM `file` of the authorities whose client certificates are accepted",
		},
		{
			name: "tokens-file", fallback: "", value: (*textValue)(&c.TokensFile),
			help: "YAML `file` of who may call; see agent-runtime token --help",
		},

		{
			name: "max-value-bytes", fallback: "1MiB", value: &bytesValue[int]{&c.MaxValueBytes, 1 << 10, 64 << 20},
			help: "largest `size` of a state value, an event's data and a run's input",
		},
		{
			name: "max-message-bytes", fallback: "16MiB", value: &bytesValue[int]{&c.MaxMessageBytes, 1 << 16, 256 << 20},
			help: "largest `size` of a gRPC message, either way",
		},
		{
			name: "rpc-timeout", fallback: "1m", value: &durationValue{&c.RPCTimeout, time.Second, day},
			help: "deadline of a call whose client sets none; calls that wait for a run get run-timeout more",
		},
		{
			name: "send-timeout", fallback: "30s", value: &durationValue{&c.SendTimeout, time.Second, time.Hour},
			help: "how long a stream waits for a reader that takes nothing",
		},

		{
			name: "stream-origins", fallback: "", value: (*originsValue)(&c.StreamOrigins),
			help: "`origins` whose pages may read streams with a ticket, such as https://example.com, with commas between",
		},
		{
			name: "stream-limit", fallback: "20000", value: &intValue{&c.StreamLimit, 1, 1_000_000},
			help: "`number` of streams with a ticket that may be open",
		},
		{
			name: "stream-limit-per-user", fallback: "20", value: &intValue{&c.StreamLimitPerUser, 1, 1_000_000},
			help: "`number` of streams with a ticket that may be open for one user",
		},

		{
			name: "max-concurrent-runs", fallback: "64", value: &intValue{&c.MaxConcurrentRuns, 1, 100_000},
			help: "`number` of runs that execute at a time",
		},
		{
			name: "max-queued-runs", fallback: "100000", value: &intValue{&c.MaxQueuedRuns, 1, 10_000_000},
			help: "`number` of runs that may wait; one more is refused. Several namespaces share a queue an eighth larger, " +
				"which none of them can fill",
		},
		{
			name: "max-attempts", fallback: "3", value: &intValue{&c.MaxAttempts, 1, 100},
			help: "`number` of times a run is begun before it fails",
		},
		{
			name: "run-timeout", fallback: "15m", value: &durationValue{&c.RunTimeout, time.Second, 30 * day},
			help: "longest one attempt of a run may take",
		},
		{
			name: "keep-runs", fallback: "100000", value: &intValue{&c.KeepRuns, 1, 10_000_000},
			help: "`number` of ended runs of each namespace that are kept, the youngest; those that failed or timed out are counted apart",
		},
		{
			name: "keep-runs-for", fallback: "720h", value: &durationValue{&c.KeepRunsFor, time.Minute, 3650 * day},
			help: "how long a run is kept after its end",
		},

		{
			name: "workspace-max-files", fallback: "1000", value: &intValue{&c.WorkspaceMaxFiles, 1, 100_000},
			help: "`number` of files that a run may have in its workspace",
		},
		{
			name: "workspace-max-file-bytes", fallback: "1MiB", value: &bytesValue[int64]{&c.WorkspaceMaxFileBytes, 1 << 10, 1 << 30},
			help: "largest `size` of one file of a workspace",
		},
		{
			name: "workspace-max-bytes", fallback: "64MiB", value: &bytesValue[int64]{&c.WorkspaceMaxBytes, 1 << 10, 64 << 30},
			help: "`size` that all files of a workspace may have",
		},
		{
			name: "keep-files-for", fallback: "168h", value: &durationValue{&c.KeepFilesFor, time.Minute, 3650 * day},
			help: "how long the files of a run are kept after its end; not longer than the run",
		},
		{
			name: "keep-threads-for", fallback: "2160h", value: &durationValue{&c.KeepThreadsFor, time.Minute, 3650 * day},
			help: "how long a thread of graphs is kept after its latest turn",
		},
		{
			name: "sandbox", fallback: "auto", value: &choiceValue{&c.Sandbox, []string{"auto", "require", "off"}},
			help: "whether agents may run commands: auto (where they can be isolated), require (else the runtime does not start) or off",
		},

		{
			name: "event-max-age", fallback: "168h", value: &durationValue{&c.EventMaxAge, 0, 3650 * day},
			help: "how long events are kept; 0: forever",
		},
		{
			name: "event-max-bytes", fallback: "1GiB", value: &bytesValue[int64]{&c.EventMaxBytes, 0, 1 << 60},
			help: "`size` that events may take before the oldest are removed; 0: any",
		},

		{
			name: "drain-timeout", fallback: "25s", value: &durationValue{&c.DrainTimeout, 0, time.Hour},
			help: "how long a stop waits for calls and runs in flight",
		},

		{
			name: "log-level", fallback: "info", value: (*levelValue)(&c.LogLevel),
			help: "least `level` that is logged: debug, info, warn or error",
		},
		{
			name: "log-format", fallback: "auto", value: &choiceValue{&c.LogFormat, []string{"auto", "json", "text"}},
			help: "json, text, or auto: text on a terminal",
		},

		{
			name: "model", fallback: "", value: (*namesValue)(&c.Models),
			help: "`name` of the language model, such as openai/gpt-5-mini; of several with commas between the next is asked " +
				"where one fails; empty: the provider's usual one",
		},
		{
			name: "openai-base-url", fallback: "", value: (*webURLValue)(&c.OpenAIBaseURL), alias: "OPENAI_BASE_URL",
			help: "`url` of an OpenAI-compatible endpoint",
		},
		{name: "openai-api-key", fallback: "", value: (*textValue)(&c.OpenAIAPIKey), alias: "OPENAI_API_KEY", secret: true},
		{
			name: "openai-api-key-file", fallback: "", value: &secretFileValue{&c.OpenAIAPIKeyFile, &c.OpenAIAPIKey},
			alias: "OPENAI_API_KEY_FILE", help: "`file` that holds the key of openai-api-key",
		},
		{
			name: "anthropic-base-url", fallback: "", value: (*webURLValue)(&c.AnthropicBaseURL), alias: "ANTHROPIC_BASE_URL",
			help: "`url` of a gateway to Anthropic's API",
		},
		{name: "anthropic-api-key", fallback: "", value: (*textValue)(&c.AnthropicAPIKey), alias: "ANTHROPIC_API_KEY", secret: true},
		{
			name: "anthropic-api-key-file", fallback: "", value: &secretFileValue{&c.AnthropicAPIKeyFile, &c.AnthropicAPIKey},
			alias: "ANTHROPIC_API_KEY_FILE", help: "`file` that holds the key of anthropic-api-key",
		},
		{
			name: "gemini-base-url", fallback: "", value: (*webURLValue)(&c.GeminiBaseURL), alias: "GOOGLE_GEMINI_BASE_URL",
			help: "`url` of a gateway to the Gemini API",
		},
		{name: "gemini-api-key", fallback: "", value: (*textValue)(&c.GeminiAPIKey), alias: "GEMINI_API_KEY", secret: true},
		{
			name: "gemini-api-key-file", fallback: "", value: &secretFileValue{&c.GeminiAPIKeyFile, &c.GeminiAPIKey},
			alias: "GEMINI_API_KEY_FILE", help: "`file` that holds the key of gemini-api-key",
		},
		{
			name: "model-concurrency", fallback: "64", value: &intValue{&c.ModelConcurrency, 1, 100_000},
			help: "`number` of requests that each provider of models is sent at a time",
		},
		{
			name: "model-timeout", fallback: "2m", value: &durationValue{&c.ModelTimeout, time.Second, time.Hour},
			help: "longest one answer of the model may take",
		},
		{
			name: "http-agents", fallback: "", value: (*httpAgentsValue)(&c.HTTPAgents),
			help: "agents that HTTP servers execute: `id=url`, several with commas between; for runs that do not say, " +
				"id=url;max-attempts=5;run-timeout=30s and the like of initial-backoff, max-backoff and multiplier",
		},
		{
			name: "definitions-dir", fallback: "", value: (*textValue)(&c.DefinitionsDir),
			help: "`folder` whose files graphs/*.yaml and agents/*.yaml, or .yml or .json, every namespace sees",
		},
		{
			name: "trace-content", fallback: "asked", value: &choiceValue{&c.TraceContent, []string{"never", "asked", "always"}},
			help: "inputs and outputs in traces: never, asked (of runs whose metadata has trace: true) or always",
		},
		{
			name: "trace-redact", fallback: "password,passwd,secret,token,authorization,cookie,*_password,*_secret,*_token,*_key,apikey",
			value: (*redactValue)(&c.TraceRedact),
			help:  "`names` of JSON members whose values are masked in traces, with commas between; * stands for any characters",
		},
		{
			name: "trace-url", fallback: "", value: (*traceURLValue)(&c.TraceURL),
			help: "`url` at which a trace is shown, with {trace_id} in it",
		},
		{
			name: "http-tools", fallback: "", value: (*prefixesValue)(&c.HTTPTools),
			help: "`urls` below which HTTP tools may go, with commas between; without any they may go to every public " +
				"address, and no secret is sent",
		},
		{
			name: "tool-secrets", fallback: "", value: (*secretsValue)(&c.ToolSecrets),
			help: "`names` of environment variables that the headers of HTTP tools may refer to, with commas between; " +
				"name=path is a file in place of a variable",
		},
		{
			name: "mcp-servers", fallback: "", value: (*textValue)(&c.MCPServers),
			help: "YAML or JSON `file` of MCP servers whose tools agents may use",
		},
		{
			name: "mcp", fallback: "on", value: (*switchValue)(&c.MCP),
			help: "on or off: whether the HTTP address serves the agents to MCP clients, at /mcp",
		},
	}
}

const day = 24 * time.Hour
