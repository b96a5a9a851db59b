import { backOff, LinkedAbort, sleep } from "./delay.js";
import { isObject, ProblemError } from "./problem.js";
import { SseParser, type SseMessage } from "./sse.js";
import { TERMINAL_TYPES, type RunEvent } from "./types.js";

/** What is said of a stream that is no event of the run. */
export type WatchNotice =
  /** The stream is open, and goes on behind the event with the sequence `after`. */
  | { kind: "open"; after: number }
  /** It broke, and is opened again after so long. `error` is null where it simply ended. */
  | { kind: "reconnecting"; delayMs: number; error: unknown }
  /** The site has the run, and the runtime that executes it does not answer. */
  | { kind: "waiting_for_runtime" }
  /** Events up to this sequence are gone for good; the stream goes on behind them. */
  | { kind: "truncated"; through: number };

/** How a stream is kept up. */
export interface KeepUpOptions {
  /** Begin behind the event with this sequence; 0, the default, is the beginning. */
  after?: number;
  /** Ends the iteration, which throws the signal's reason. */
  signal?: AbortSignal;
  /** After so long without a byte, a connection counts as lost. 45 s, three times the server's heartbeat, by default. */
  idleTimeoutMs?: number;
  /** After how many failures in a row to give up and throw the last; never, by default. */
  maxFailures?: number;
  /** Told what happens to the connection. */
  onNotice?: (notice: WatchNotice) => void;
}

/** Opens the stream behind a place. An answer of any status is returned. */
export type OpenStream = (after: number, signal: AbortSignal) => Promise<Response>;

const DEFAULT_IDLE_TIMEOUT_MS = 45_000;
// Until the server has said how long it wants readers to wait.
const DEFAULT_RETRY_MS = 1000;
// A connection that was up for this long was a good one, also without an event.
const GOOD_CONNECTION_MS = 30_000;

/**
 * The events of a run, each once and in order, over as many connections as it takes, until the run has ended.
 *
 * @throws ProblemError when the server refuses for good, or answers with something else than events.
 */
export async function* keepUp(open: OpenStream, options: KeepUpOptions): AsyncGenerator<RunEvent, void, undefined> {
  const { signal, onNotice, idleTimeoutMs = DEFAULT_IDLE_TIMEOUT_MS, maxFailures = Infinity } = options;
  let position = options.after ?? 0;
  let retryMs = DEFAULT_RETRY_MS;
  let failures = 0;
  for (;;) {
    signal?.throwIfAborted();
    const connection = new Connection(open, position, idleTimeoutMs, signal);
    let openedAt = Infinity;
    let failure: unknown = null;
    try {
      for (;;) {
        let step: Step;
        try {
          step = await connection.read();
        } catch (error) {
          signal?.throwIfAborted();
          if (error instanceof ProblemError && !error.isTransient) throw error;
          failure = error;
          break;
        }
        if (step.kind === "over") return;
        if (step.kind === "end") break;
        if (step.kind === "open") {
          openedAt = performance.now();
          onNotice?.({ kind: "open", after: position });
        } else {
          for (const message of step.messages) {
            signal?.throwIfAborted();
            const event = readMessage(message, position, onNotice);
            if (event === undefined) {
              // What it says of the place is read below.
            } else if (event instanceof ProblemError) failure = event;
            else {
              position = event.seq;
              failures = 0;
              yield event;
              if (TERMINAL_TYPES.has(event.type)) return;
            }
          }
          position = Math.max(position, readPlace(connection.lastEventId));
        }
      }
    } finally {
      connection.close();
    }
    retryMs = connection.retryMs ?? retryMs;
    failures = performance.now() - openedAt > GOOD_CONNECTION_MS ? 1 : failures + 1;
    if (failures > maxFailures) throw failure ?? new Error("The stream ended before the run did.");
    const wantedMs = failure instanceof ProblemError ? (failure.retryAfterSeconds ?? 0) * 1000 : 0;
    const delayMs = Math.max(backOff(failures, retryMs), backOff(1, wantedMs));
    onNotice?.({ kind: "reconnecting", delayMs, error: failure });
    await sleep(delayMs, signal);
  }
}

type Step =
  | { kind: "open" }
  | { kind: "messages"; messages: SseMessage[] }
  /** The server ended the stream; the run has not ended. */
  | { kind: "end" }
  /** There is nothing behind this place, and never will be. */
  | { kind: "over" };

/** One connection, from the request to its end, with a watchdog over every wait for the server. */
class Connection {
  readonly #open: OpenStream;
  readonly #after: number;
  readonly #idleTimeoutMs: number;
  readonly #abort: LinkedAbort;
  readonly #parser = new SseParser();
  #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;

  constructor(open: OpenStream, after: number, idleTimeoutMs: number, signal?: AbortSignal) {
    this.#open = open;
    this.#after = after;
    this.#idleTimeoutMs = idleTimeoutMs;
    this.#abort = new LinkedAbort(signal);
  }

  get lastEventId(): string {
    return this.#parser.lastEventId;
  }

  get retryMs(): number | undefined {
    return this.#parser.retryMs;
  }

  /** What comes next. A consumer that is slow between two calls does not wake the watchdog. */
  async read(): Promise<Step> {
    const watchdog = setTimeout(() => {
      this.#abort.abort(new DOMException(`Nothing came for ${this.#idleTimeoutMs} ms.`, "TimeoutError"));
    }, this.#idleTimeoutMs);
    try {
      return this.#reader ? await this.#readBody(this.#reader) : await this.#connect();
    } finally {
      clearTimeout(watchdog);
    }
  }

  close(): void {
    this.#abort.abort(new DOMException("The stream was closed.", "AbortError"));
  }

  async #connect(): Promise<Step> {
    const response = await this.#open(this.#after, this.#abort.signal);
    if (response.status === 204) return { kind: "over" };
    if (!response.ok) throw await ProblemError.fromResponse(response);
    const type = response.headers.get("Content-Type") ?? "";
    if (!response.body || !/^text\/event-stream\b/i.test(type)) {
      // Such as the page of a sign-in form that the request was redirected to.
      const detail = `The server answered with ${type || "no content type"} where a stream of events was expected.`;
      throw new ProblemError({ title: "Not an event stream", detail, code: "NOT_AN_EVENT_STREAM" }, { status: response.status });
    }
    this.#reader = response.body.getReader();
    return { kind: "open" };
  }

  async #readBody(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<Step> {
    const { done, value } = await reader.read();
    return done ? { kind: "end" } : { kind: "messages", messages: this.#parser.push(value) };
  }
}

/**
 * The event of a block; why the server ends the stream for now; or nothing, where it was seen before or is no event.
 *
 * @throws ProblemError when the stream cannot go on.
 */
function readMessage(
  message: SseMessage,
  position: number,
  onNotice: ((notice: WatchNotice) => void) | undefined,
): RunEvent | ProblemError | undefined {
  let data: unknown;
  try {
    data = JSON.parse(message.data);
  } catch (error) {
    const detail = `An event of the stream is no JSON: ${String(error)}`;
    throw new ProblemError({ title: "Not an event", detail, code: "NOT_AN_EVENT" }, { status: 200 });
  }
  if (!isObject(data)) return undefined;
  if (typeof data.seq === "number") return data.seq > position ? (data as RunEvent) : undefined;
  if (data.type === "run.waiting_for_runtime") onNotice?.({ kind: "waiting_for_runtime" });
  if (data.type !== "stream.error") return undefined;
  const problem = new ProblemError(isObject(data.problem) ? data.problem : {}, { status: 500 });
  const through = readPlace(message.lastEventId);
  if (through > position) onNotice?.({ kind: "truncated", through });
  else if (!problem.isTransient) throw problem;
  return problem;
}

function readPlace(id: string): number {
  return /^\d+$/.test(id) ? Number(id) : 0;
}
