import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export const RUN_ID = "0b6bd8a7-6e0c-4f5a-8f1e-2f0a4f6f9a11";

export interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly url: URL;
  readonly body: string;
}

type Handler = (exchange: Exchange) => unknown;

/** An HTTP server that answers as each test says, and keeps what it was asked. */
export class Site {
  /** Every request, in order. */
  readonly seen: Exchange[] = [];
  readonly #server: Server;
  readonly #waiting = new Set<() => void>();
  #open = 0;

  constructor(handle: (exchange: Exchange, number: number) => unknown) {
    this.#server = createServer((request, response) => {
      let body = "";
      this.#open++;
      response.on("close", () => {
        this.#open--;
        this.#tell();
      });
      request.setEncoding("utf8").on("data", (part: string) => (body += part));
      request.on("end", () => {
        const url = new URL(request.url ?? "/", this.origin);
        const exchange = { request, response, url, body };
        const number = this.seen.push(exchange) - 1;
        this.#tell();
        handle(exchange, number);
      });
    });
  }

  /** A site that runs; it is stopped at the end of the test. */
  static async start(test: { after: (stop: () => Promise<void>) => void }, handle: (exchange: Exchange, number: number) => unknown): Promise<Site> {
    const site = new Site(handle);
    await new Promise<void>((resolve) => site.#server.listen(0, "127.0.0.1", resolve));
    test.after(() => site.stop());
    return site;
  }

  get origin(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get baseUrl(): string {
    return `${this.origin}/api/agents`;
  }

  /** How many requests have not been answered to the end. */
  get open(): number {
    return this.#open;
  }

  /** Waits for something that a request or the end of one brings about. */
  async until(holds: () => boolean): Promise<void> {
    while (!holds()) await new Promise<void>((resolve) => this.#waiting.add(resolve));
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #tell(): void {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }
}

/** Answers one request after the other, the last for ever. */
export function inTurn(...handlers: Handler[]): (exchange: Exchange, number: number) => unknown {
  return (exchange, number) => handlers[Math.min(number, handlers.length - 1)]?.(exchange);
}

export function answerJson({ response }: Exchange, body: unknown, status = 200, headers: Record<string, string> = {}): void {
  response.writeHead(status, { "Content-Type": "application/json", ...headers }).end(JSON.stringify(body));
}

export function answerProblem(exchange: Exchange, status: number, code: string, headers: Record<string, string> = {}): void {
  const problem = { type: `urn:problem:${code}`, title: "Refused", status, detail: `It is ${code}.`, code, request_id: "r1" };
  answerJson(exchange, problem, status, { "Content-Type": "application/problem+json", ...headers });
}

/** Begins a stream. Readers come again at once after it, so that tests are quick. */
export function beginStream({ response }: Exchange, retryMs = 1): ServerResponse {
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-cache" });
  response.write(`retry: ${retryMs}\n\n`);
  return response;
}

/** An event as one block of a stream. */
export function frame(seq: number, type: string, payload: Record<string, unknown> = {}): string {
  const envelope = { type, seq, run_id: RUN_ID, ts: "2025-01-02T03:04:05Z", visibility: "user", payload };
  return `id: ${seq}\nevent: ${type}\ndata: ${JSON.stringify({ ...payload, ...envelope })}\n\n`;
}

/** Cuts the connection without a word, once what was written is on its way. */
export function cut(response: ServerResponse, last: string | Uint8Array = ":\n"): void {
  response.write(last, () => response.socket?.destroy());
}
