import assert from "node:assert/strict";
import type { Conversation, Interrupt, Run, RunEvent, RunEventPayloads, RunFailure, RunSummary, StreamTicket } from "../src/types.js";

/** What JSON has for a type; where the type leaves it open, it is not looked at. */
type Kind<T> = unknown extends T
  ? "anything"
  : T extends string
    ? "string"
    : T extends number
      ? "number"
      : T extends boolean
        ? "boolean"
        : T extends null
          ? "null"
          : T extends readonly unknown[]
            ? "array"
            : "object";

/**
 * Every member of a type, with what it may be. The compiler lets it name nothing that the type does not have; what the
 * site sends must be all in it. So the type says at least what the site sends.
 */
export type Shape<T> = {
  readonly [K in keyof T]-?: readonly (Kind<Exclude<T[K], undefined>> | (object extends Pick<T, K> ? "absent" : never))[];
};

/** Of some type. */
export type AnyShape = Readonly<Record<string, readonly string[]>>;

const STRING = ["string"] as const;
const NUMBER = ["number"] as const;
const OBJECT = ["object"] as const;
const ANYTHING = ["anything"] as const;
const MAYBE_STRING = ["string", "null"] as const;
const MAYBE_OBJECT = ["object", "null"] as const;
const OPTIONAL_STRING = ["string", "absent"] as const;

export const RUN_SUMMARY: Shape<RunSummary> = {
  id: STRING,
  conversation_id: MAYBE_STRING,
  agent_key: STRING,
  status: STRING,
  error: MAYBE_OBJECT,
  interrupt: MAYBE_OBJECT,
  attempt: NUMBER,
  max_attempts: ["number", "null"],
  priority: NUMBER,
  metadata: OBJECT,
  idempotency_key: STRING,
  retry_of: MAYBE_STRING,
  parent_run_id: MAYBE_STRING,
  schedule_id: STRING,
  rolled_back_by: MAYBE_STRING,
  trace_id: STRING,
  trace_url: STRING,
  created_at: STRING,
  started_at: MAYBE_STRING,
  finished_at: MAYBE_STRING,
  cancel_requested_at: MAYBE_STRING,
  submitted_at: MAYBE_STRING,
};
export const RUN: Shape<Run> = { ...RUN_SUMMARY, input: ANYTHING, output: ANYTHING, stale: ["boolean"] };
export const FAILURE: Shape<RunFailure> = { message: STRING, reason: STRING, retryable: ["boolean"], error_type: STRING };
export const INTERRUPT: Shape<Interrupt> = { interrupt_id: STRING, payload: ANYTHING };
export const CONVERSATION: Shape<Conversation> = {
  id: STRING,
  agent_key: STRING,
  title: STRING,
  metadata: OBJECT,
  created_at: STRING,
  updated_at: STRING,
};
export const TICKET: Shape<StreamTicket> = { url: MAYBE_STRING, path: STRING, expires_at: STRING };
export const PAYLOADS: { readonly [T in keyof RunEventPayloads]: Shape<RunEventPayloads[T]> } = {
  "run.queued": { not_before: OPTIONAL_STRING },
  "run.started": { attempt: NUMBER },
  "run.heartbeat": {},
  "run.retrying": {
    attempt: NUMBER,
    reason: STRING,
    error: OPTIONAL_STRING,
    error_type: OPTIONAL_STRING,
    retry_at: OPTIONAL_STRING,
  },
  "run.interrupted": { interrupt_id: STRING, payload: ANYTHING },
  "run.resumed": { interrupt_id: OPTIONAL_STRING },
  "run.waiting": { run_ids: ["array"] },
  "run.succeeded": { output: ANYTHING },
  "run.failed": { error: STRING, reason: STRING, error_type: OPTIONAL_STRING },
  "run.cancelled": { error: STRING, reason: STRING },
  "run.timed_out": { error: STRING, reason: STRING },
  "assistant.message": { content: ANYTHING },
  "assistant.delta": { content: STRING },
  "tool.call": { tool: STRING, arguments: ANYTHING, tool_call_id: OPTIONAL_STRING },
  "tool.result": { result: ANYTHING, tool: OPTIONAL_STRING, tool_call_id: OPTIONAL_STRING },
  "step.completed": { key: STRING, result: ANYTHING },
  "state.checkpoint": {},
  error: { error: STRING, details: ["object", "absent"] },
};

/** Fails unless an object of the site has the members that its type has, and no others. */
export function checkShape(shape: AnyShape, value: object, name: string): void {
  assert.deepEqual(Object.keys(value).filter((key) => !Object.hasOwn(shape, key)), [], `${name} has members that its type has not`);
  for (const [key, kinds] of Object.entries(shape)) {
    const kind = kindOf((value as Record<string, unknown>)[key]);
    const fits = kinds.includes(kind) || (kinds.includes("anything") && kind !== "absent");
    assert.ok(fits, `${name}.${key} is ${kind}, and its type says ${kinds.join(" or ")}`);
  }
}

/** Fails unless the payload of an event is as its type says. Agents may have types of their own. */
export function checkPayload({ type, payload }: RunEvent): void {
  const shape = (PAYLOADS as Readonly<Record<string, AnyShape>>)[type];
  // What an agent keeps is its own.
  if (shape && type !== "state.checkpoint") checkShape(shape, payload, type);
}

function kindOf(value: unknown): string {
  if (value === undefined) return "absent";
  if (value === null) return "null";
  return Array.isArray(value) ? "array" : typeof value;
}
