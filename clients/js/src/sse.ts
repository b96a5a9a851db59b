/** One dispatched block of a stream of Server-Sent Events. */
export interface SseMessage {
  /** What `event:` said; `message` where it said nothing. */
  type: string;
  /** The `data:` lines, joined by line feeds. */
  data: string;
  /** The last id up to and with this block; empty where there was none. */
  lastEventId: string;
}

/**
 * Reads a stream of Server-Sent Events piece by piece, as
 * https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation says.
 *
 * A block counts once its blank line is there: what a broken connection leaves behind is dropped.
 */
export class SseParser {
  /** The id of the last block that was complete, also of one without data. */
  lastEventId = "";
  /** How long the server wants a reader to wait before it connects again, in milliseconds, if it said so. */
  retryMs: number | undefined;

  // It takes a byte order mark at the very beginning off.
  readonly #decoder = new TextDecoder("utf-8");
  // A CR that ended the last piece has ended its line: an LF that follows is the other half of the same line end.
  #endedWithCr = false;
  // Pieces of a line that has not ended, joined when it does: adding to one text each time is slow for long lines.
  #unfinished: string[] = [];
  #data: string[] = [];
  #type = "";
  #id = "";

  /** Takes the next bytes; returns the blocks that they complete. A piece may end anywhere, also within a character. */
  push(bytes: Uint8Array): SseMessage[] {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (text === "") return [];
    if (this.#endedWithCr && text.startsWith("\n")) text = text.slice(1);
    this.#endedWithCr = false;
    return this.#readLines(text);
  }

  #readLines(text: string): SseMessage[] {
    const messages: SseMessage[] = [];
    let start = 0;
    for (const { index, 0: end } of text.matchAll(/\r\n|\n|\r/g)) {
      this.#unfinished.push(text.slice(start, index));
      const message = this.#readLine(this.#unfinished.join(""));
      this.#unfinished = [];
      if (message) messages.push(message);
      start = index + end.length;
    }
    if (start < text.length) this.#unfinished.push(text.slice(start));
    this.#endedWithCr = text.endsWith("\r");
    return messages;
  }

  #readLine(line: string): SseMessage | undefined {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return undefined;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    switch (field) {
      case "data":
        this.#data.push(value);
        break;
      case "event":
        this.#type = value;
        break;
      case "id":
        if (!value.includes("\0")) this.#id = value;
        break;
      case "retry":
        if (/^[0-9]+$/.test(value)) this.retryMs = Number(value);
        break;
    }
    return undefined;
  }

  #dispatch(): SseMessage | undefined {
    this.lastEventId = this.#id;
    const [data, type] = [this.#data, this.#type];
    this.#data = [];
    this.#type = "";
    if (data.length === 0) return undefined;
    return { type: type || "message", data: data.join("\n"), lastEventId: this.lastEventId };
  }
}
