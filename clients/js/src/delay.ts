/** What waits in between two tries, and what ends them. */

/** Longest wait in milliseconds, unless the server asks for a longer one. */
const MAX_DELAY_MS = 30_000;
/** Longest wait that a timer can hold; one above it would not wait at all. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/**
 * How long to wait before the next try, in milliseconds: twice as long after each failure in a row, never less than
 * `baseMs`, and up to half more by chance, so that readers that were cut off together do not come back together.
 */
export function backOff(failures: number, baseMs: number): number {
  const delay = Math.max(baseMs, Math.min(MAX_DELAY_MS, baseMs * 2 ** Math.max(0, failures - 1)));
  return delay * (1 + Math.random() / 2);
}

/**
 * Waits.
 *
 * @throws the signal's reason, when it is aborted before or meanwhile.
 */
export async function sleep(milliseconds: number, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  await new Promise<void>((resolve, reject) => {
    const abort = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, Math.min(milliseconds, MAX_TIMER_MS));
    signal?.addEventListener("abort", abort, { once: true });
  });
}

/** A signal of its own that is aborted with another one too. */
export class LinkedAbort {
  readonly #controller = new AbortController();
  readonly #outer: AbortSignal | undefined;
  readonly #follow = (): void => this.#controller.abort(this.#outer?.reason);

  constructor(outer?: AbortSignal) {
    this.#outer = outer;
    if (outer?.aborted) this.#follow();
    else outer?.addEventListener("abort", this.#follow, { once: true });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Ends what uses the signal, and lets go of the other one. */
  abort(reason?: unknown): void {
    this.release();
    this.#controller.abort(reason);
  }

  /** Lets go of the other signal, which may live for long. */
  release(): void {
    this.#outer?.removeEventListener("abort", this.#follow);
  }
}
