import assert from "node:assert/strict";
import { test } from "node:test";
import { SseParser, type SseMessage } from "../src/sse.js";

const encoder = new TextEncoder();

/** What comes out of a text: once in one piece, and once byte by byte, which must not differ. */
function parse(text: string | Uint8Array): { messages: SseMessage[]; parser: SseParser } {
  const bytes = typeof text === "string" ? encoder.encode(text) : text;
  const parser = new SseParser();
  const messages = parser.push(bytes);
  const slow = new SseParser();
  const again = [...bytes].flatMap((byte) => slow.push(Uint8Array.of(byte)));
  assert.deepEqual(again, messages, "byte by byte");
  assert.equal(slow.lastEventId, parser.lastEventId);
  assert.equal(slow.retryMs, parser.retryMs);
  return { messages, parser };
}

const message = (data: string, rest: Partial<SseMessage> = {}): SseMessage => ({ type: "message", data, lastEventId: "", ...rest });

const blocks: Record<string, { text: string; expected: SseMessage[] }> = {
  "line feeds": { text: "data: a\n\ndata: b\n\n", expected: [message("a"), message("b")] },
  "carriage returns": { text: "data: a\r\rdata: b\r\r", expected: [message("a"), message("b")] },
  "both together": { text: "data: a\r\n\r\ndata: b\r\n\r\n", expected: [message("a"), message("b")] },
  "line ends of all kinds": { text: "data: a\rdata: b\ndata: c\r\n\r\n", expected: [message("a\nb\nc")] },
  "a byte order mark": { text: "\uFEFFdata: a\n\n", expected: [message("a")] },
  "a second byte order mark is a part of the name": { text: "\uFEFF\uFEFFdata: a\n\ndata: b\n\n", expected: [message("b")] },
  "a byte order mark later is one of the data": { text: "data: \uFEFFa\n\n", expected: [message("\uFEFFa")] },
  "comments": { text: ": hello\n:\ndata: a\n: more\n\n: bye\n\n", expected: [message("a")] },
  "several lines of data": { text: "data: a\ndata\ndata: b\n\n", expected: [message("a\n\nb")] },
  "one space alone is taken off": { text: "data:a\ndata: b\ndata:  c\ndata:\td\n\n", expected: [message("a\nb\n c\n\td")] },
  "data without a value": { text: "data\n\ndata:\n\ndata\ndata\n\n", expected: [message(""), message(""), message("\n")] },
  "colons in a value": { text: "data: a: b:c\n\n", expected: [message("a: b:c")] },
  "names of types": { text: "event: x\ndata: a\n\ndata: b\n\n", expected: [message("a", { type: "x" }), message("b")] },
  "the last name of a block counts": { text: "event: x\nevent: y\ndata: a\n\n", expected: [message("a", { type: "y" })] },
  "an empty name": { text: "event: x\nevent:\ndata: a\n\n", expected: [message("a")] },
  "a block without data has no name for the next": { text: "event: x\n\ndata: a\n\n", expected: [message("a")] },
  "an id stays until the next": {
    text: "id: 1\ndata: a\n\ndata: b\n\nid: 2\ndata: c\n\n",
    expected: [message("a", { lastEventId: "1" }), message("b", { lastEventId: "1" }), message("c", { lastEventId: "2" })],
  },
  "an id without a value clears it": {
    text: "id: 1\ndata: a\n\nid\ndata: b\n\n",
    expected: [message("a", { lastEventId: "1" }), message("b")],
  },
  "an id with a NUL is ignored": {
    text: "id: 1\nid: 2\0\ndata: a\n\n",
    expected: [message("a", { lastEventId: "1" })],
  },
  "fields that are not known": { text: "Data: x\nfoo: y\n data: z\ndata : z\ndata: a\n\n", expected: [message("a")] },
  "a block that is cut off is dropped": { text: "data: a\n\nid: 9\ndata: b\n", expected: [message("a")] },
  "characters of several bytes": { text: "data: ä€😀\n\n", expected: [message("ä€😀")] },
};

for (const [name, { text, expected }] of Object.entries(blocks)) {
  test(`blocks: ${name}`, () => assert.deepEqual(parse(text).messages, expected));
}

const places: Record<string, { text: string; expected: string }> = {
  "none": { text: "data: a\n\n", expected: "" },
  "of a block without data": { text: "id: 7\n\n", expected: "7" },
  "of a block with a comment alone": { text: "id: 7\n: heartbeat\n\n", expected: "7" },
  "not of a block that is cut off": { text: "id: 7\ndata: a\n\nid: 8\ndata: b\n", expected: "7" },
};

for (const [name, { text, expected }] of Object.entries(places)) {
  test(`last event id: ${name}`, () => assert.equal(parse(text).parser.lastEventId, expected));
}

const waits: Record<string, number | undefined> = {
  "retry: 2000\n": 2000,
  "retry:0\n": 0,
  "retry: 007\n": 7,
  "retry\n": undefined,
  "retry: -1\n": undefined,
  "retry: 1.5\n": undefined,
  "retry: 1e3\n": undefined,
  "retry:  5\n": undefined,
  "retry: ٣\n": undefined,
};

for (const [text, expected] of Object.entries(waits)) {
  test(`retry: ${JSON.stringify(text)}`, () => assert.equal(parse(text).parser.retryMs, expected));
}

test("bytes that are no UTF-8 become replacement characters", () => {
  const bytes = Uint8Array.from([...encoder.encode("data: "), 0xff, 0x0a, 0x0a]);
  assert.deepEqual(parse(bytes).messages, [message("\uFFFD")]);
});

test("any cut gives the same blocks", () => {
  const text = "\uFEFFid: 1\r\nevent: é\r\ndata: a\r\n\r\n: c\r\rdata: 😀\ndata: b\n\r\nretry: 5\r\n";
  const bytes = encoder.encode(text);
  const whole = parse(bytes).messages;
  assert.equal(whole.length, 2);
  for (let first = 0; first <= bytes.length; first++) {
    for (let second = first; second <= bytes.length; second++) {
      const parser = new SseParser();
      const pieces = [bytes.subarray(0, first), bytes.subarray(first, second), bytes.subarray(second)];
      assert.deepEqual(pieces.flatMap((piece) => parser.push(piece)), whole, `cut at ${first} and ${second}`);
    }
  }
});

test("a line of a megabyte in small pieces is one block", () => {
  const parser = new SseParser();
  const piece = encoder.encode("x".repeat(64));
  parser.push(encoder.encode("data: "));
  for (let n = 0; n < 16_384; n++) parser.push(piece);
  const [found] = parser.push(encoder.encode("\n\n"));
  assert.equal(found?.data.length, 1 << 20);
});
