import { backOff, LinkedAbort, sleep } from "./delay.js";
import { ProblemError } from "./problem.js";
import type {
  Conversation,
  ConversationChanges,
  ConversationQuery,
  Message,
  NewConversation,
  NewRun,
  Page,
  Run,
  RunEvent,
  RunQuery,
  RunSummary,
  StreamTicket,
} from "./types.js";
import { keepUp, type KeepUpOptions, type OpenStream } from "./watch.js";

export interface ClientOptions {
  /** Where `django_agent_runtime.api.urls` is mounted. `/api/agents` by default; outside of a page it must be absolute. */
  baseUrl?: string;
  /** Stands in for the global `fetch`. */
  fetch?: typeof fetch;
  /** Asked before every request to Django, for example for `{ Authorization: "Token …" }`. */
  headers?: () => Record<string, string> | Promise<Record<string, string>>;
  /** The token of an anonymous session. */
  anonymousToken?: string;
  /**
   * Where Django's CSRF token comes from. `auto`, the default, takes it from the cookie `csrftoken` and sends it to the
   * page's own origin alone; a function gives the token of a site that keeps it elsewhere; `off` sends none.
   */
  csrf?: "auto" | "off" | (() => string | undefined);
  /** Whether cookies go along, as for `fetch`. `same-origin` by default. */
  credentials?: RequestCredentials;
  /** Public address of the runtime's HTTP port, for sites without `PUBLIC_STREAM_URL`. */
  streamUrl?: string;
  /** How long one try of a call may take. 30 s by default. */
  timeoutMs?: number;
}

export interface CallOptions {
  signal?: AbortSignal;
}

export interface CreateRunOptions extends CallOptions {
  /** A repeat with the same key and the same run is answered with the first run. A new one for each call by default. */
  idempotencyKey?: string;
}

/** Which events a reader wants, beside those for every user. */
export interface VisibilityOptions {
  /** Also those of level `debug`. */
  includeDebug?: boolean;
  /** Those of every level; for staff and who has the permission. */
  includeAll?: boolean;
}

export interface WatchOptions extends KeepUpOptions, VisibilityOptions {
  /** Whether Django sends the events, or the runtime itself for a stream ticket that Django gives. */
  via?: "django" | "ticket";
}

interface Call {
  method?: "GET" | "POST" | "PATCH" | "DELETE";
  query?: object;
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
  /** Whether sending it twice does what sending it once does. */
  isRepeatable: boolean;
}

const MAX_TRIES = 3;
const RETRY_MS = 300;
// A server that wants a longer wait than this is the caller's matter.
const MAX_RETRY_AFTER_SECONDS = 10;
const DEFAULT_TIMEOUT_MS = 30_000;
const CSRF_COOKIE = "csrftoken";

/**
 * Calls the API of `django_agent_runtime`.
 *
 * Every method throws ProblemError for a refusal, and what `fetch` throws where no answer came. Calls that may be sent
 * twice are tried three times while the site is away.
 */
export class AgentRuntimeClient {
  readonly #baseUrl: string;
  readonly #options: ClientOptions;

  constructor(options: ClientOptions = {}) {
    this.#baseUrl = (options.baseUrl ?? "/api/agents").replace(/\/+$/, "");
    this.#options = options;
  }

  /** Has an agent run. */
  createRun(run: NewRun, options: CreateRunOptions = {}): Promise<Run> {
    const headers = { "Idempotency-Key": options.idempotencyKey ?? makeKey() };
    return this.#call("/runs/", { method: "POST", body: run, headers, signal: options.signal, isRepeatable: true });
  }

  /** A run as it is now. */
  getRun(runId: string, options: CallOptions = {}): Promise<Run> {
    return this.#call(`/runs/${encodeURIComponent(runId)}/`, { ...options, isRepeatable: true });
  }

  /** A page of the caller's runs, newest first. */
  async listRuns(query: RunQuery = {}, options: CallOptions = {}): Promise<Page<RunSummary>> {
    return readPage(await this.#call("/runs/", { ...options, query, isRepeatable: true }));
  }

  /** Ends a run. Where the runtime is away, the run ends once it is back. */
  cancelRun(runId: string, reason = "", options: CallOptions = {}): Promise<Run> {
    return this.#act(runId, "cancel", { reason }, true, options);
  }

  /** Answers what a waiting run asks; without `interruptId`, the question that it waits at. */
  resumeRun(runId: string, value: unknown, interruptId?: string, options: CallOptions = {}): Promise<Run> {
    const answer = interruptId === undefined ? {} : { interrupt_id: interruptId };
    // JSON has no undefined: the agent gets null.
    return this.#act(runId, "resume", { value: value ?? null, ...answer }, interruptId !== undefined, options);
  }

  /** Does again what a run did that ended badly, as a new run. */
  retryRun(runId: string, options: CreateRunOptions = {}): Promise<Run> {
    const headers = { "Idempotency-Key": options.idempotencyKey ?? makeKey() };
    return this.#act(runId, "retry", {}, true, options, headers);
  }

  /** Deletes a run with its events; one that has not ended is cancelled. */
  deleteRun(runId: string, options: CallOptions = {}): Promise<void> {
    return this.#call(`/runs/${encodeURIComponent(runId)}/`, { ...options, method: "DELETE", isRepeatable: true });
  }

  /** Begins a conversation. */
  createConversation(conversation: NewConversation = {}, options: CallOptions = {}): Promise<Conversation> {
    return this.#call("/conversations/", { ...options, method: "POST", body: conversation, isRepeatable: false });
  }

  /** A conversation. */
  getConversation(conversationId: string, options: CallOptions = {}): Promise<Conversation> {
    return this.#call(`/conversations/${encodeURIComponent(conversationId)}/`, { ...options, isRepeatable: true });
  }

  /** Changes the title or the metadata of a conversation; what is left out stays. */
  updateConversation(
    conversationId: string,
    changes: ConversationChanges,
    options: CallOptions = {},
  ): Promise<Conversation> {
    const path = `/conversations/${encodeURIComponent(conversationId)}/`;
    return this.#call(path, { ...options, method: "PATCH", body: changes, isRepeatable: true });
  }

  /** A page of the caller's conversations, newest first. */
  async listConversations(query: ConversationQuery = {}, options: CallOptions = {}): Promise<Page<Conversation>> {
    return readPage(await this.#call("/conversations/", { ...options, query, isRepeatable: true }));
  }

  /** Deletes a conversation with its runs; those that have not ended are cancelled. */
  deleteConversation(conversationId: string, options: CallOptions = {}): Promise<void> {
    const path = `/conversations/${encodeURIComponent(conversationId)}/`;
    return this.#call(path, { ...options, method: "DELETE", isRepeatable: true });
  }

  /** The messages of all runs of a conversation, oldest first. */
  async listMessages(conversationId: string, options: CallOptions = {}): Promise<Message[]> {
    const path = `/conversations/${encodeURIComponent(conversationId)}/messages/`;
    const { messages } = await this.#call<{ messages: Message[] }>(path, { ...options, isRepeatable: true });
    return messages;
  }

  /** An address at which whoever has it can read a run's events, straight from the runtime. */
  createStreamTicket(runId: string, options: VisibilityOptions & CallOptions = {}): Promise<StreamTicket> {
    const { signal } = options;
    const path = `/runs/${encodeURIComponent(runId)}/stream-ticket/`;
    return this.#call(path, { method: "POST", query: describeVisibility(options), signal, isRepeatable: true });
  }

  /**
   * The events of a run, each once and in order, until the run has ended; lost connections are opened again.
   *
   * Leaving the loop closes the connection.
   *
   * @throws ProblemError when the site refuses for good; the signal's reason when that is aborted.
   */
  watchRun(runId: string, options: WatchOptions = {}): AsyncGenerator<RunEvent, void, undefined> {
    const open = options.via === "ticket" ? this.#openByTicket(runId, options) : this.#openAtDjango(runId, options);
    return keepUp(open, options);
  }

  /**
   * The address of a run's events for a plain `EventSource`, which cannot send headers: the anonymous token is in the
   * query, and all events go to `onmessage`.
   */
  eventSourceUrl(runId: string, options: VisibilityOptions & { after?: number; named?: boolean } = {}): string {
    return this.#eventsUrl(runId, {
      ...describeVisibility(options),
      last_event_id: options.after || undefined,
      unnamed: options.named ? undefined : 1,
      anonymous_token: this.#options.anonymousToken,
    });
  }

  #openAtDjango(runId: string, options: VisibilityOptions): OpenStream {
    const url = this.#eventsUrl(runId, describeVisibility(options));
    return async (after, signal) => {
      const headers = await this.#headersFor(url, "GET");
      headers.set("Accept", "text/event-stream");
      if (after) headers.set("Last-Event-ID", String(after));
      return this.#fetch(url, { headers, signal, cache: "no-store", credentials: this.#credentials });
    };
  }

  #openByTicket(runId: string, options: VisibilityOptions): OpenStream {
    let ticket: string | undefined;
    return async (after, signal) => {
      // One that worked may be over by now, which only a new one can tell from a refusal.
      const isNew = ticket === undefined;
      ticket ??= await this.#ticketUrl(runId, options, signal);
      const response = await this.#openTicket(ticket, after, signal);
      if (isNew || (response.status !== 401 && response.status !== 403)) return response;
      await response.body?.cancel();
      ticket = await this.#ticketUrl(runId, options, signal);
      return this.#openTicket(ticket, after, signal);
    };
  }

  async #ticketUrl(runId: string, options: VisibilityOptions, signal: AbortSignal): Promise<string> {
    const ticket = await this.createStreamTicket(runId, { ...options, signal });
    if (ticket.url) return ticket.url;
    const { streamUrl } = this.#options;
    if (!streamUrl) {
      const detail = "The site has no PUBLIC_STREAM_URL: set it, or give the client the runtime's address as streamUrl.";
      throw new ProblemError({ title: "No address for streams", detail, code: "NO_STREAM_URL" }, { status: 501 });
    }
    return streamUrl.replace(/\/+$/, "") + ticket.path;
  }

  /** Sends nothing that a browser would ask the other origin about first, nor what is for Django alone. */
  #openTicket(ticket: string, after: number, signal: AbortSignal): Promise<Response> {
    const url = after ? `${ticket}${ticket.includes("?") ? "&" : "?"}last_event_id=${after}` : ticket;
    const headers = { Accept: "text/event-stream" };
    return this.#fetch(url, { headers, signal, cache: "no-store", credentials: "omit" });
  }

  #eventsUrl(runId: string, query: object): string {
    return `${this.#baseUrl}/runs/${encodeURIComponent(runId)}/events/${formatQuery(query)}`;
  }

  #act(
    runId: string,
    verb: string,
    body: object,
    isRepeatable: boolean,
    { signal }: CallOptions,
    headers: Record<string, string> = {},
  ): Promise<Run> {
    const path = `/runs/${encodeURIComponent(runId)}/${verb}/`;
    return this.#call(path, { method: "POST", body, headers, signal, isRepeatable });
  }

  async #call<T>(path: string, call: Call): Promise<T> {
    const url = this.#baseUrl + path + formatQuery(call.query ?? {});
    for (let tries = 1; ; tries++) {
      let waitSeconds = 0;
      try {
        return await this.#callOnce<T>(url, call);
      } catch (error) {
        call.signal?.throwIfAborted();
        const isGone = call.method === "DELETE" && error instanceof ProblemError && error.status === 404;
        // The try before got through, and its answer did not.
        if (isGone && tries > 1) return undefined as T;
        if (!call.isRepeatable || tries >= MAX_TRIES) throw error;
        if (error instanceof ProblemError) {
          waitSeconds = error.retryAfterSeconds ?? 0;
          if (!error.isTransient || waitSeconds > MAX_RETRY_AFTER_SECONDS) throw error;
        }
      }
      await sleep(Math.max(waitSeconds * 1000, backOff(tries, RETRY_MS)), call.signal);
    }
  }

  async #callOnce<T>(url: string, { method = "GET", body, headers: own = {}, signal }: Call): Promise<T> {
    const timeoutMs = this.#options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    const abort = new LinkedAbort(signal);
    const timer = setTimeout(() => {
      abort.abort(new DOMException(`The site did not answer within ${timeoutMs} ms.`, "TimeoutError"));
    }, timeoutMs);
    try {
      const headers = await this.#headersFor(url, method);
      headers.set("Accept", "application/json");
      for (const [name, value] of Object.entries(own)) headers.set(name, value);
      const init: RequestInit = { method, headers, signal: abort.signal, credentials: this.#credentials };
      if (body !== undefined) {
        headers.set("Content-Type", "application/json");
        init.body = JSON.stringify(body);
      }
      const response = await this.#fetch(url, init);
      if (!response.ok) throw await ProblemError.fromResponse(response);
      if (response.status === 204) return undefined as T;
      const type = response.headers.get("Content-Type") ?? "";
      if (!/\bjson\b/i.test(type)) {
        const detail = `The server answered with ${type || "no content type"} where JSON was expected.`;
        throw new ProblemError({ title: "Not JSON", detail, code: "NOT_JSON" }, { status: response.status });
      }
      return (await response.json()) as T;
    } finally {
      clearTimeout(timer);
      abort.release();
    }
  }

  async #headersFor(url: string, method: string): Promise<Headers> {
    const headers = new Headers(await this.#options.headers?.());
    if (this.#options.anonymousToken) headers.set("X-Anonymous-Token", this.#options.anonymousToken);
    const token = method === "GET" ? undefined : this.#csrfToken(url);
    if (token && !headers.has("X-CSRFToken")) headers.set("X-CSRFToken", token);
    return headers;
  }

  #csrfToken(url: string): string | undefined {
    const { csrf = "auto" } = this.#options;
    if (csrf === "off") return undefined;
    if (csrf !== "auto") return csrf();
    // Another origin must not learn it, and outside of a page there is none.
    if (typeof document === "undefined" || new URL(url, document.baseURI).origin !== location.origin) return undefined;
    const entry = document.cookie.split("; ").find((cookie) => cookie.startsWith(`${CSRF_COOKIE}=`));
    return entry && decodeURIComponent(entry.slice(CSRF_COOKIE.length + 1));
  }

  get #credentials(): RequestCredentials {
    return this.#options.credentials ?? "same-origin";
  }

  #fetch(url: string, init: RequestInit): Promise<Response> {
    // Browsers refuse to call their own one as a method of anything else than the window.
    const own = this.#options.fetch;
    return own ? own(url, init) : fetch(url, init);
  }
}

function describeVisibility({ includeDebug, includeAll }: VisibilityOptions): object {
  return { include_debug: includeDebug || undefined, include_all: includeAll || undefined };
}

function formatQuery(query: object): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return text && `?${text}`;
}

/** The page with cursors in place of addresses, which name the host that Django believes to be. */
function readPage<T>(page: Page<T>): Page<T> {
  return { results: page.results, next: readCursor(page.next), previous: readCursor(page.previous) };
}

function readCursor(address: string | null): string | null {
  return address && new URL(address, "http://localhost").searchParams.get("cursor");
}

/** A key that nobody else makes. `randomUUID` is there only in pages of https and localhost. */
function makeKey(): string {
  if (typeof crypto.randomUUID === "function") return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
