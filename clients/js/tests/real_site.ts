/**
 * Uses the built package against a served site with the real runtime; `test_javascript_client.py` has both, and runs
 * this with the site's address, a user's token, the runtime's address and every type of event that the site knows.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import type { Conversation, NewRun, Run, RunEvent, RunSummary, WatchOptions } from "../src/index.js";
import { checkPayload, checkShape, CONVERSATION, FAILURE, INTERRUPT, PAYLOADS, RUN, RUN_SUMMARY, TICKET, type AnyShape } from "./shapes.js";

const NAME = "@djangobridge/agent-runtime";
const { AgentRuntimeClient, isEvent, Transcript } = (await import(NAME)) as typeof import("../src/index.js");
const [origin = "", token = "", streamUrl = "", ...eventTypes] = process.argv.slice(2);

/** The origins that were asked for events. */
const streamed = new Set<string>();
const client = new AgentRuntimeClient({
  baseUrl: `${origin}/api/agents`,
  streamUrl,
  headers: () => ({ Authorization: `Token ${token}` }),
  fetch: (input, init) => {
    if (new Headers(init?.headers).get("Accept") === "text/event-stream") streamed.add(new URL(String(input)).origin);
    return fetch(input, init);
  },
});
const limit = { timeout: 60_000 };

function checked<T extends RunSummary>(run: T, shape: AnyShape = RUN): T {
  checkShape(shape, run, "the run");
  if (run.error) checkShape(FAILURE, run.error, "its error");
  if (run.interrupt) checkShape(INTERRUPT, run.interrupt, "its interrupt");
  return run;
}

async function create(agentKey: string, text: string, changes: Partial<NewRun> = {}): Promise<Run> {
  return checked(await client.createRun({ agent_key: agentKey, messages: [{ role: "user", content: text }], ...changes }));
}

/** The events of a run, each as its type says; `answer` is told each as it comes. */
async function watch(runId: string, options: WatchOptions = {}, answer?: (event: RunEvent) => Promise<void>): Promise<RunEvent[]> {
  const events: RunEvent[] = [];
  for await (const event of client.watchRun(runId, { includeAll: true, maxFailures: 3, ...options })) {
    checkPayload(event);
    assert.equal(event.run_id, runId);
    assert.ok(Number.isFinite(Date.parse(event.ts)), event.ts);
    events.push(event);
    await answer?.(event);
  }
  return events;
}

const typesOf = (events: RunEvent[]): string[] => events.map(({ type }) => type);

/** What the site has from the runtime a moment later. */
async function until<T>(look: () => Promise<T | undefined>): Promise<T> {
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    await pause(50);
  }
}

test("every type of event that the site knows has its payload", () => {
  assert.deepEqual(Object.keys(PAYLOADS).sort(), eventTypes.sort());
});

test("a run is created, watched and read", limit, async () => {
  const run = await create("travel-agent", "Please get weather", { metadata: { order: 7 } });
  streamed.clear();
  const events = await watch(run.id);
  assert.deepEqual([...streamed], [origin]);
  assert.equal(events.at(-1)?.type, "run.succeeded");
  for (const type of ["run.started", "tool.call", "tool.result", "assistant.delta"]) assert.ok(typesOf(events).includes(type), type);
  const transcript = new Transcript();
  for (const event of events) transcript.add(event);
  assert.match(transcript.state.text, /Rome: sunny/);
  assert.equal(transcript.state.status, "complete");
  const done = checked(await client.getRun(run.id));
  assert.deepEqual([done.status, done.stale, done.attempt, done.metadata], ["succeeded", false, 1, { order: 7 }]);
  const output = done.output as { final_output: { response: string } };
  assert.equal(output.final_output.response, transcript.state.text);
  assert.deepEqual(await watch(run.id, { after: events.at(-1)?.seq ?? 0 }), []);
});

test("a stream ticket gives the same events, straight from the runtime", limit, async () => {
  const run = await create("travel-agent", "Please get weather");
  streamed.clear();
  const direct = await watch(run.id, { via: "ticket" });
  assert.deepEqual([...streamed], [streamUrl]);
  const plain = (events: RunEvent[]): object[] => events.map(({ seq, type, visibility, payload }) => ({ seq, type, visibility, payload }));
  assert.deepEqual(plain(direct), plain(await watch(run.id)));
  checkShape(TICKET, await client.createStreamTicket(run.id), "the ticket");
});

test("a cancelled run ends, and is done again by another", limit, async () => {
  const run = await create("chat-agent", "Hello!", { delay_seconds: 600 });
  const cancelled = checked(await client.cancelRun(run.id, "changed my mind"));
  assert.ok(cancelled.cancel_requested_at);
  assert.deepEqual(typesOf(await watch(run.id)), ["run.queued", "run.cancelled"]);
  const { status, error } = checked(await client.getRun(run.id));
  assert.equal(status, "cancelled");
  assert.match(error?.message ?? "", /changed my mind/);
  const again = checked(await client.retryRun(run.id));
  assert.deepEqual([again.retry_of, (await watch(again.id)).at(-1)?.type], [run.id, "run.succeeded"]);
});

/** Approves what a run asks. */
async function approve(event: RunEvent): Promise<void> {
  if (!isEvent(event, "run.interrupted")) return;
  const waiting = checked(await client.getRun(event.run_id));
  assert.deepEqual([waiting.status, waiting.interrupt], ["waiting", event.payload]);
  checked(await client.resumeRun(event.run_id, "Approve", event.interrupt_id));
}

test("a question is answered", limit, async () => {
  const run = await create("refund-agent", "Refund order 7");
  const events = await watch(run.id, {}, approve);
  const resumed = events.find((event) => isEvent(event, "run.resumed"));
  assert.ok(resumed?.interrupt_id);
  assert.ok(typesOf(events).includes("step.completed"));
  assert.match(String(events.filter((event) => isEvent(event, "assistant.message")).at(-1)?.content), /^Refunded 175 €/);
});

test("sub-runs are listed, each under the run that made it alone", limit, async () => {
  const run = await create("front-desk-agent", "Refund order 7");
  let subRun: RunSummary | undefined;
  const events = await watch(run.id, {}, async (event) => {
    if (!isEvent(event, "run.waiting")) return;
    subRun = await until(async () => (await client.listRuns({ parent_run: run.id })).results[0]);
    assert.deepEqual(event.run_ids, [subRun.id]);
    await watch(subRun.id, {}, approve);
  });
  assert.ok(subRun);
  checked(subRun, RUN_SUMMARY);
  assert.deepEqual([subRun.agent_key, subRun.parent_run_id, subRun.schedule_id], ["refund-agent", run.id, ""]);
  const resumed = events.find((event) => isEvent(event, "run.resumed"));
  assert.deepEqual(resumed?.payload, {});
  assert.equal(events.at(-1)?.type, "run.succeeded");
  const { results } = await client.listRuns({ page_size: 100 });
  for (const each of results) checked(each, RUN_SUMMARY);
  assert.ok(results.some(({ id }) => id === run.id));
  assert.ok(!results.some(({ id }) => id === subRun?.id));
});

test("failures say why, also of an attempt that is not the last", limit, async () => {
  const run = await create("flaky-agent", "Hello!");
  const events = await watch(run.id, {}, async (event) => {
    if (isEvent(event, "run.started") && event.attempt === 3) checked(await client.cancelRun(run.id));
  });
  const retrying = events.find((event) => isEvent(event, "run.retrying"));
  assert.deepEqual([retrying?.attempt, retrying?.error_type], [1, "ConnectionError"]);
  const slow = await create("endless-agent", "Tell me a story", { run_timeout_seconds: 0.5 });
  assert.equal((await watch(slow.id)).at(-1)?.type, "run.timed_out");
  const failed = await create("flaky-agent", "Hello!", { max_attempts: 1 });
  const end = (await watch(failed.id)).at(-1);
  assert.ok(end && isEvent(end, "run.failed"));
  const { error } = checked(await client.getRun(failed.id));
  assert.deepEqual([error?.message, error?.error_type, end.error_type], [end.error, "ConnectionError", "ConnectionError"]);
});

test("a conversation keeps what is said in it", limit, async () => {
  const checkedConversation = (conversation: Conversation): Conversation => {
    checkShape(CONVERSATION, conversation, "the conversation");
    return conversation;
  };
  const { id } = checkedConversation(await client.createConversation({ agent_key: "chat-agent", title: "A chat" }));
  checkedConversation(await client.updateConversation(id, { title: "Another" }));
  assert.equal(checkedConversation(await client.getConversation(id)).title, "Another");
  await watch((await create("chat-agent", "Hello!", { conversation_id: id })).id);
  const said = await until(async () => {
    const messages = await client.listMessages(id);
    return messages.length > 1 ? messages : undefined;
  });
  assert.deepEqual(said.map(({ role }) => role), ["user", "assistant"]);
  await client.deleteConversation(id);
  await assert.rejects(client.getConversation(id), { name: "ProblemError", status: 404 });
});
