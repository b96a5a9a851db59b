import { isObject } from "./problem.js";
import { isEvent, type Interrupt, type RunEvent } from "./types.js";

/** Where a run stands, as a page shows it. `idle`: there is no run. */
export type TranscriptStatus = "idle" | "running" | "waiting" | "complete" | "error" | "cancelled";

/** Why a run ended as failed or timed out. */
export class RunFailedError extends Error {
  override readonly name = "RunFailedError";
  /** What a program switches on. */
  readonly reason: string;
  /** The class of the agent's exception, or empty. */
  readonly errorType: string;

  constructor(message: string, reason: string, errorType: string) {
    super(message);
    this.reason = reason;
    this.errorType = errorType;
  }
}

/** What the events of a run add up to. */
export interface TranscriptState {
  /** All but `assistant.delta`, unless those were to be kept. */
  readonly events: readonly RunEvent[];
  readonly status: TranscriptStatus;
  /** What the agent says: the message that is being written, else the last whole one. */
  readonly text: string;
  /** Why the run failed, or why it cannot be watched. */
  readonly error: Error | null;
  /** What the run waits to be told. */
  readonly interrupt: Interrupt | null;
}

/** Adds up the events of one run. */
export class Transcript {
  readonly #keepDeltas: boolean;
  #state: TranscriptState;
  #fresh: RunEvent[] = [];
  // Whether the next delta goes on with `text`, or begins another one.
  #isWriting = false;

  constructor(options: { status?: TranscriptStatus; keepDeltas?: boolean } = {}) {
    this.#keepDeltas = options.keepDeltas ?? false;
    this.#state = { events: [], status: options.status ?? "running", text: "", error: null, interrupt: null };
  }

  /** The sum so far; the same object until something is added. */
  get state(): TranscriptState {
    if (this.#fresh.length > 0) {
      this.#set({ events: [...this.#state.events, ...this.#fresh] });
      this.#fresh = [];
    }
    return this.#state;
  }

  get hasEnded(): boolean {
    return this.#state.status === "complete" || this.#state.status === "error" || this.#state.status === "cancelled";
  }

  /** Adds the next event. */
  add(event: RunEvent): void {
    if (event.type !== "assistant.delta" || this.#keepDeltas) this.#fresh.push(event);
    if (isEvent(event, "assistant.delta")) this.#write(event.payload.content);
    else if (isEvent(event, "assistant.message")) this.#finish(event.payload.content);
    else if (isEvent(event, "run.interrupted")) {
      // The envelope's own `payload` hides the question's.
      const { interrupt_id, payload = null } = event.payload;
      this.#set({ status: "waiting", interrupt: { interrupt_id, payload } });
    } else if (isEvent(event, "run.started") || isEvent(event, "run.retrying") || isEvent(event, "run.resumed")) {
      // The agent begins anew, and writes once more what it was writing.
      this.#isWriting = false;
      this.#set({ status: "running", interrupt: null });
    } else if (isEvent(event, "run.succeeded")) this.#set({ status: "complete", interrupt: null });
    else if (isEvent(event, "run.cancelled")) this.#set({ status: "cancelled", interrupt: null });
    else if (isEvent(event, "run.failed") || isEvent(event, "run.timed_out")) this.fail(describeFailure(event));
  }

  /** Ends it with an error, of the run or of watching it. */
  fail(error: Error): void {
    this.#set({ status: "error", error, interrupt: null });
  }

  #write(content: unknown): void {
    if (typeof content !== "string") return;
    this.#set({ text: this.#isWriting ? this.#state.text + content : content });
    this.#isWriting = true;
  }

  #finish(content: unknown): void {
    // A message that only calls tools says nothing: what was written before it stands.
    const text = readText(content);
    if (text) this.#set({ text });
    this.#isWriting = false;
  }

  #set(change: Partial<TranscriptState>): void {
    this.#state = { ...this.#state, ...change };
  }
}

/** The text of a message, whose content is a text or a list of parts. */
function readText(content: unknown): string {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return "";
  return content.map((part) => (isObject(part) && typeof part.text === "string" ? part.text : "")).join("");
}

function describeFailure({ payload }: RunEvent): RunFailedError {
  const text = (name: string): string => (typeof payload[name] === "string" ? payload[name] : "");
  return new RunFailedError(text("error") || "The run failed.", text("reason"), text("error_type"));
}
