import { useMemo, useSyncExternalStore } from "react";
import { AgentRuntimeClient, type WatchOptions } from "./client.js";
import { Transcript, type TranscriptState } from "./transcript.js";
import type { Run } from "./types.js";

export interface UseAgentRunOptions extends Pick<WatchOptions, "includeDebug" | "includeAll" | "via"> {
  /** Make it once, outside of the component or in `useMemo`: with another one, the stream begins anew. */
  client?: AgentRuntimeClient;
  /** Keep each `assistant.delta` in `events` too; they are only joined into `text` otherwise. */
  keepDeltas?: boolean;
  /** Events that come within this many milliseconds cause one render. 16 by default. */
  batchMs?: number;
}

export interface AgentRunView extends TranscriptState {
  /** Ends the run. */
  cancel: (reason?: string) => Promise<Run>;
  /** Answers what the run asks. */
  resume: (value: unknown) => Promise<Run>;
}

const DEFAULT_BATCH_MS = 16;
const IDLE = new Transcript({ status: "idle" }).state;
const STARTING = new Transcript().state;

let defaultClient: AgentRuntimeClient | undefined;

/**
 * Follows a run while the component is mounted.
 *
 * @param runId - The run; null or undefined while there is none.
 */
export function useAgentRun(runId: string | null | undefined, options: UseAgentRunOptions = {}): AgentRunView {
  const { includeDebug = false, includeAll = false, via = "django", keepDeltas = false, batchMs = DEFAULT_BATCH_MS } = options;
  const client = options.client ?? (defaultClient ??= new AgentRuntimeClient());
  const store = useMemo(
    () => new RunStore(client, runId || null, { includeDebug, includeAll, via }, keepDeltas, batchMs),
    [client, runId, includeDebug, includeAll, via, keepDeltas, batchMs],
  );
  const state = useSyncExternalStore(store.subscribe, store.getState, store.getStartState);
  return useMemo(() => ({ ...state, cancel: store.cancel, resume: store.resume }), [state, store]);
}

/** What one run adds up to. It is read while somebody subscribes, and goes on from where it was for the next one. */
class RunStore {
  readonly #client: AgentRuntimeClient;
  readonly #runId: string | null;
  readonly #options: WatchOptions;
  readonly #batchMs: number;
  readonly #transcript: Transcript;
  readonly #listeners = new Set<() => void>();
  #shown: TranscriptState;
  #position = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #reading: AbortController | undefined;

  constructor(client: AgentRuntimeClient, runId: string | null, options: WatchOptions, keepDeltas: boolean, batchMs: number) {
    this.#client = client;
    this.#runId = runId;
    this.#options = options;
    this.#batchMs = batchMs;
    this.#transcript = new Transcript({ status: runId === null ? "idle" : "running", keepDeltas });
    this.#shown = this.getStartState();
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    if (!this.#reading && this.#runId !== null && !this.#transcript.hasEnded) {
      this.#reading = new AbortController();
      void this.#read(this.#runId, this.#reading.signal);
    }
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size > 0) return;
      this.#reading?.abort();
      this.#reading = undefined;
      clearTimeout(this.#timer);
      this.#timer = undefined;
      this.#shown = this.#transcript.state;
    };
  };

  readonly getState = (): TranscriptState => this.#shown;

  /** Always the same, as rendering on a server and taking that over wants it. */
  readonly getStartState = (): TranscriptState => (this.#runId === null ? IDLE : STARTING);

  readonly cancel = async (reason?: string): Promise<Run> => this.#client.cancelRun(this.#requireRun(), reason);

  readonly resume = async (value: unknown): Promise<Run> =>
    this.#client.resumeRun(this.#requireRun(), value, this.#transcript.state.interrupt?.interrupt_id);

  #requireRun(): string {
    if (this.#runId === null) throw new Error("There is no run.");
    return this.#runId;
  }

  async #read(runId: string, signal: AbortSignal): Promise<void> {
    try {
      for await (const event of this.#client.watchRun(runId, { ...this.#options, after: this.#position, signal })) {
        // One that came before the end of the subscription, and was not handed over by then.
        if (signal.aborted) return;
        this.#position = event.seq;
        this.#transcript.add(event);
        if (!this.#transcript.hasEnded) this.#showSoon();
      }
    } catch (error) {
      if (signal.aborted) return;
      this.#transcript.fail(error instanceof Error ? error : new Error(String(error)));
    }
    this.#show();
  }

  #showSoon(): void {
    this.#timer ??= setTimeout(() => this.#show(), this.#batchMs);
  }

  #show(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#shown = this.#transcript.state;
    for (const listener of this.#listeners) listener();
  }
}
