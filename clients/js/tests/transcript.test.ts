import assert from "node:assert/strict";
import { test } from "node:test";
import { RunFailedError, Transcript, type TranscriptState } from "../src/transcript.js";
import { isEvent, type RunEvent } from "../src/types.js";
import { RUN_ID } from "./site.js";

type Told = [type: string, payload?: Record<string, unknown>];

function add(told: Told[], keepDeltas = false): TranscriptState {
  const transcript = new Transcript({ keepDeltas });
  for (const [index, [type, payload = {}]] of told.entries()) {
    const event: RunEvent = { ...payload, type, payload, seq: index + 1, run_id: RUN_ID, ts: "", visibility: "user" };
    transcript.add(event);
  }
  return transcript.state;
}

const delta = (content: string): Told => ["assistant.delta", { content }];
const message = (content: unknown): Told => ["assistant.message", { content }];

const texts: Record<string, { told: Told[]; text: string }> = {
  "nothing": { told: [], text: "" },
  "pieces": { told: [delta("Hel"), delta("lo")], text: "Hello" },
  "a message takes the place of its pieces": { told: [delta("Hel"), message("Hello!")], text: "Hello!" },
  "the next piece begins the next message": { told: [delta("a"), message("A"), delta("b"), delta("c")], text: "bc" },
  "a message without pieces": { told: [message("A"), message("B")], text: "B" },
  "a message of parts": { told: [message([{ type: "text", text: "A" }, { type: "image" }, "x", { text: "B" }])], text: "AB" },
  "a message that only calls tools": { told: [delta("Let me see"), message(null)], text: "Let me see" },
  "pieces behind one that only calls tools": { told: [delta("Let me see"), message(null), delta("So")], text: "So" },
  "an attempt that broke off stands until the next one writes": {
    told: [message("A"), delta("He"), ["run.retrying", { attempt: 1 }], ["run.started", { attempt: 2 }]],
    text: "He",
  },
  "the next attempt writes it again": { told: [delta("He"), ["run.retrying", { attempt: 1 }], delta("Hello")], text: "Hello" },
  "so it does when only its start is shown": { told: [delta("He"), ["run.started", { attempt: 2 }], delta("Hello")], text: "Hello" },
  "so it does after an answer": {
    told: [delta("He"), ["run.interrupted", { interrupt_id: "i" }], ["run.resumed", { interrupt_id: "i" }], delta("Hello")],
    text: "Hello",
  },
  "pieces that are no text": { told: [["assistant.delta", { content: 1 }], ["assistant.delta"], delta("a")], text: "a" },
};

for (const [name, { told, text }] of Object.entries(texts)) {
  test(`text: ${name}`, () => assert.equal(add(told).text, text));
}

const stands: Record<string, { told: Told[]; expected: Partial<TranscriptState> }> = {
  "at first": { told: [], expected: { status: "running" } },
  "a question": {
    told: [["run.interrupted", { interrupt_id: "i1", payload: { ask: "ok?" } }]],
    expected: { status: "waiting", interrupt: { interrupt_id: "i1", payload: { ask: "ok?" } } },
  },
  "a question without words": {
    told: [["run.interrupted", { interrupt_id: "i1" }]],
    expected: { status: "waiting", interrupt: { interrupt_id: "i1", payload: null } },
  },
  "an answer": {
    told: [["run.interrupted", { interrupt_id: "i1" }], ["run.resumed", { interrupt_id: "i1" }]],
    expected: { status: "running", interrupt: null },
  },
  "cancelled at a question": {
    told: [["run.interrupted", { interrupt_id: "i1" }], ["run.cancelled"]],
    expected: { status: "cancelled", interrupt: null, error: null },
  },
  "succeeded": { told: [["run.succeeded", { output: {} }]], expected: { status: "complete", error: null } },
  "an error that is not the end": { told: [["error", { error: "m" }]], expected: { status: "running", error: null } },
};

for (const [name, { told, expected }] of Object.entries(stands)) {
  test(`status: ${name}`, () => {
    const state = add(told);
    for (const [key, value] of Object.entries(expected)) assert.deepEqual(state[key as keyof TranscriptState], value, key);
  });
}

for (const type of ["run.failed", "run.timed_out"]) {
  test(`status: ${type}`, () => {
    const { status, error } = add([[type, { error: "It broke.", reason: "AGENT_FAILED", error_type: "KeyError" }]]);
    assert.equal(status, "error");
    assert.ok(error instanceof RunFailedError);
    assert.deepEqual([error.message, error.reason, error.errorType], ["It broke.", "AGENT_FAILED", "KeyError"]);
  });
}

test("an error that is not the end is typed", () => {
  const { events: [event] } = add([["error", { error: "It broke.", details: { code: 7 } }]]);
  assert.ok(event && isEvent(event, "error"));
  assert.deepEqual([event.error, event.payload.details?.code], ["It broke.", 7]);
});

test("pieces are kept one by one only where that is wanted", () => {
  const told: Told[] = [["run.queued"], delta("a"), message("A")];
  const types = ({ events }: TranscriptState): string[] => events.map(({ type }) => type);
  assert.deepEqual(types(add(told)), ["run.queued", "assistant.message"]);
  assert.deepEqual(types(add(told, true)), ["run.queued", "assistant.delta", "assistant.message"]);
});

test("a state does not change afterwards, and is the same while nothing is added", () => {
  const transcript = new Transcript();
  const before = transcript.state;
  assert.equal(transcript.state, before);
  transcript.add({ type: "x", seq: 1, run_id: RUN_ID, ts: "", visibility: "user", payload: {} });
  assert.deepEqual([before.events.length, transcript.state.events.length], [0, 1]);
});
