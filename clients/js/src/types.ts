/** Objects of the API, under the names that they have there. */

export type RunStatus = "queued" | "running" | "waiting" | "succeeded" | "failed" | "cancelled" | "timed_out";
export type Visibility = "internal" | "debug" | "user";

/** A message of a conversation. */
export interface Message {
  role: string;
  content?: unknown;
  [member: string]: unknown;
}

/** A run to be made. */
export interface NewRun {
  agent_key: string;
  messages: Message[];
  /** One of the caller's own. */
  conversation_id?: string | null;
  params?: Record<string, unknown>;
  metadata?: Record<string, unknown>;
  max_attempts?: number;
  priority?: number;
  /** What happens while another run of the conversation has not ended. */
  multitask_strategy?: "enqueue" | "reject" | "interrupt" | "rollback";
  delay_seconds?: number;
  /** ISO 8601; instead of `delay_seconds`. */
  run_at?: string;
  run_timeout_seconds?: number;
  queue_timeout_seconds?: number;
}

/** Why a run ended in another way than success, or why the latest attempt of a queued one did not succeed. */
export interface RunFailure {
  /** One sentence for a person. */
  message: string;
  /** What a program switches on. */
  reason: string;
  /** Whether another attempt could succeed. */
  retryable: boolean;
  /** The class of the agent's exception, or empty. */
  error_type: string;
}

/** What a waiting run asks. */
export interface Interrupt {
  interrupt_id: string;
  payload: unknown;
}

/** A run, as lists have it. Times are ISO 8601. */
export interface RunSummary {
  id: string;
  conversation_id: string | null;
  agent_key: string;
  status: RunStatus;
  /** Of a run that has ended otherwise than in success, and of one that is queued for its next attempt. */
  error: RunFailure | null;
  interrupt: Interrupt | null;
  /** 0 before the first. */
  attempt: number;
  /** Null where its creation did not say, until the site has heard of it from the runtime. */
  max_attempts: number | null;
  priority: number;
  metadata: Record<string, unknown>;
  /** Empty where it was created without one. */
  idempotency_key: string;
  retry_of: string | null;
  /** Of a sub-run: the run that created it. */
  parent_run_id: string | null;
  /** The schedule that created it, or empty. */
  schedule_id: string;
  /** The run with the strategy `rollback` that takes this one back; once cancelled, it is no part of the history. */
  rolled_back_by: string | null;
  /** The id of its OpenTelemetry trace, or empty. */
  trace_id: string;
  /** Where that trace is shown, or empty. */
  trace_url: string;
  created_at: string;
  started_at: string | null;
  finished_at: string | null;
  cancel_requested_at: string | null;
  submitted_at: string | null;
}

/** A run with what it was given and what it made. */
export interface Run extends RunSummary {
  input: unknown;
  /** `{}` until the run has succeeded. */
  output: unknown;
  /** Whether the runtime could not be asked just now. */
  stale: boolean;
}

export interface Conversation {
  id: string;
  agent_key: string;
  title: string;
  metadata: Record<string, unknown>;
  created_at: string;
  updated_at: string;
}

export interface NewConversation {
  agent_key?: string;
  title?: string;
  metadata?: Record<string, unknown>;
}

export type ConversationChanges = Pick<NewConversation, "title" | "metadata">;

/** One page of a list, newest first. */
export interface Page<T> {
  results: T[];
  /** What to give as `cursor` for the next page; null on the last. */
  next: string | null;
  previous: string | null;
}

export interface PageQuery {
  /** `next` or `previous` of another page. */
  cursor?: string | null;
  page_size?: number;
}

export interface RunQuery extends PageQuery {
  status?: RunStatus;
  agent_key?: string;
  /** The id of a conversation. */
  conversation?: string;
  /** The id of a run, whose sub-runs are listed. Without it, the list has no sub-runs. */
  parent_run?: string;
}

export interface ConversationQuery extends PageQuery {
  agent_key?: string;
}

/** An address at which whoever has it can read a run's events, straight from the runtime. */
export interface StreamTicket {
  /** Null where the site does not say at which public address the runtime is. */
  url: string | null;
  /** Path and query behind the public address of the runtime's HTTP port. */
  path: string;
  expires_at: string;
}

/** An event of a run. The members of its payload stand beside these too, where they have other names. */
export interface RunEvent {
  /** The place in the run's log: rises, is unique, skips numbers. */
  seq: number;
  type: string;
  run_id: string;
  /** ISO 8601. */
  ts: string;
  visibility: Visibility;
  payload: Record<string, unknown>;
  [member: string]: unknown;
}

/** What the payloads of events hold. Agents may emit others, and may add members. */
export interface RunEventPayloads {
  /** It does not begin before `not_before`. */
  "run.queued": { not_before?: string };
  "run.started": { attempt: number };
  "run.heartbeat": Record<string, unknown>;
  /** `reason` is `GIVEN_BACK`, without an `error`, where the worker stopped and the same attempt goes on elsewhere. */
  "run.retrying": { attempt: number; reason: string; error?: string; error_type?: string; retry_at?: string };
  /** `payload` is the question; beside the envelope it is only in `event.payload.payload`. */
  "run.interrupted": { interrupt_id: string; payload: unknown };
  /** `interrupt_id` is the question that was answered; there is none where sub-runs were waited for. */
  "run.resumed": { interrupt_id?: string };
  "run.waiting": { run_ids: string[] };
  "run.succeeded": { output: unknown };
  "run.failed": { error: string; reason: string; error_type?: string };
  "run.cancelled": { error: string; reason: string };
  "run.timed_out": { error: string; reason: string };
  "assistant.message": { content: unknown };
  "assistant.delta": { content: string };
  "tool.call": { tool: string; arguments: unknown; tool_call_id?: string };
  "tool.result": { result: unknown; tool?: string; tool_call_id?: string };
  "step.completed": { key: string; result: unknown };
  /** What the agent keeps. */
  "state.checkpoint": Record<string, unknown>;
  /** What went wrong without ending the run. */
  error: { error: string; details?: Record<string, unknown> };
}

/** An event of a known type. */
export type RunEventOf<T extends keyof RunEventPayloads> = RunEvent &
  Omit<RunEventPayloads[T], "payload"> & { type: T; payload: RunEventPayloads[T] };

/** Whether an event is of a type; its payload's members are typed then. */
export function isEvent<T extends keyof RunEventPayloads>(event: RunEvent, type: T): event is RunEventOf<T> {
  return event.type === type;
}

/** The types of which one is the last event of every run. */
export const TERMINAL_TYPES: ReadonlySet<string> = new Set(["run.succeeded", "run.failed", "run.cancelled", "run.timed_out"]);
