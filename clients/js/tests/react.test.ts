import assert from "node:assert/strict";
import { after, test, type TestContext } from "node:test";
import { JSDOM } from "jsdom";
import { act, Activity, createElement, StrictMode, type ReactNode } from "react";
import { createRoot } from "react-dom/client";
import { renderToString } from "react-dom/server";
import { AgentRuntimeClient } from "../src/client.js";
import { ProblemError } from "../src/problem.js";
import { useAgentRun, type AgentRunView, type UseAgentRunOptions } from "../src/react.js";
import { RunFailedError } from "../src/transcript.js";
import { answerJson, answerProblem, beginStream, frame, inTurn, RUN_ID, Site, type Exchange } from "./site.js";

const limit = { timeout: 20_000 };
const OTHER_ID = "1c7ce9b8-7f1d-4a6b-9a2f-3a1b5a7a0b22";

const { window } = new JSDOM();
Object.assign(globalThis, { window, document: window.document, IS_REACT_ACT_ENVIRONMENT: true });
after(() => window.close());

/** A component that follows a run, and what it showed each time it was rendered. */
class Probe {
  readonly views: AgentRunView[] = [];
  readonly #root = createRoot(window.document.createElement("div"));
  readonly #client: AgentRuntimeClient;
  #isMounted = false;

  constructor(t: TestContext, site: Site) {
    this.#client = new AgentRuntimeClient({ baseUrl: site.baseUrl, csrf: "off" });
    t.after(() => this.unmount());
  }

  async render(runId: string | null | undefined, options: UseAgentRunOptions & { strict?: boolean; mode?: "visible" | "hidden" } = {}): Promise<void> {
    const { strict, mode, ...rest } = options;
    const client = this.#client;
    const Show = (): ReactNode => {
      this.views.push(useAgentRun(runId, { client, ...rest }));
      return null;
    };
    // One type of component for all renders, as on a page: another one would be mounted anew.
    this.#show = Show;
    const component = createElement(this.#component);
    const element = mode ? createElement(Activity, { mode, children: component }) : component;
    this.#isMounted = true;
    await act(async () => this.#root.render(strict ? createElement(StrictMode, null, element) : element));
  }

  #show: () => ReactNode = () => null;
  readonly #component = (): ReactNode => this.#show();

  get view(): AgentRunView {
    const view = this.views.at(-1);
    assert.ok(view);
    return view;
  }

  /** Renders until the view is as wanted. */
  async until(holds: (view: AgentRunView) => boolean): Promise<AgentRunView> {
    while (!holds(this.view)) await act(() => new Promise((resolve) => setImmediate(resolve)));
    return this.view;
  }

  async unmount(): Promise<void> {
    if (!this.#isMounted) return;
    this.#isMounted = false;
    await act(async () => this.#root.unmount());
  }
}

const types = ({ events }: AgentRunView): string[] => events.map(({ type }) => type);

test("a run is shown from its first word to its end", limit, async (t) => {
  const site = await Site.start(t, (exchange) => beginStream(exchange));
  const probe = new Probe(t, site);
  await probe.render(RUN_ID);
  assert.deepEqual([probe.view.status, probe.view.text, types(probe.view)], ["running", "", []]);
  await site.until(() => site.seen.length === 1);
  const { response } = site.seen[0] as Exchange;
  response.write(frame(1, "run.started", { attempt: 1 }) + frame(2, "assistant.delta", { content: "Hel" }));
  await probe.until(({ text }) => text === "Hel");
  response.write(frame(3, "assistant.delta", { content: "lo" }) + frame(4, "assistant.message", { content: "Hello!" }));
  await probe.until(({ text }) => text === "Hello!");
  response.write(frame(5, "run.succeeded", { output: {} }));
  const view = await probe.until(({ status }) => status === "complete");
  assert.deepEqual(types(view), ["run.started", "assistant.message", "run.succeeded"]);
  assert.equal(view.error, null);
  await site.until(() => site.open === 0);
});

test("without a run nothing is asked", limit, async (t) => {
  const site = await Site.start(t, (exchange) => beginStream(exchange).write(frame(1, "run.succeeded")));
  const probe = new Probe(t, site);
  for (const none of [null, undefined, ""]) {
    await probe.render(none);
    assert.equal(probe.view.status, "idle");
  }
  await assert.rejects(probe.view.cancel(), /no run/);
  await assert.rejects(probe.view.resume(1), /no run/);
  await probe.render(RUN_ID);
  await probe.until(({ status }) => status === "complete");
  assert.equal(site.seen.length, 1);
});

test("a failure of the run, and one of watching it, are errors", limit, async (t) => {
  const site = await Site.start(t, (exchange) => {
    if (exchange.url.pathname.includes(OTHER_ID)) answerProblem(exchange, 404, "RUN_NOT_FOUND");
    else beginStream(exchange).write(frame(1, "run.failed", { error: "It broke.", reason: "AGENT_FAILED" }));
  });
  const probe = new Probe(t, site);
  await probe.render(RUN_ID);
  const failed = await probe.until(({ status }) => status === "error");
  assert.ok(failed.error instanceof RunFailedError && failed.error.reason === "AGENT_FAILED");
  await probe.render(OTHER_ID);
  assert.deepEqual([probe.view.status, probe.view.error], ["running", null]);
  const refused = await probe.until(({ status }) => status === "error");
  assert.ok(refused.error instanceof ProblemError && refused.error.code === "RUN_NOT_FOUND");
});

test("a question is shown, answered by its id, and gone", limit, async (t) => {
  const site = await Site.start(t, (exchange) => {
    if (exchange.request.method === "POST") answerJson(exchange, { id: RUN_ID });
    else beginStream(exchange).write(frame(1, "run.interrupted", { interrupt_id: "i1", payload: "ok?" }));
  });
  const probe = new Probe(t, site);
  await probe.render(RUN_ID);
  const asked = await probe.until(({ status }) => status === "waiting");
  assert.deepEqual(asked.interrupt, { interrupt_id: "i1", payload: "ok?" });
  await asked.resume("yes");
  const [stream, answer] = site.seen as [Exchange, Exchange];
  assert.deepEqual([answer.url.pathname, answer.body], [`/api/agents/runs/${RUN_ID}/resume/`, '{"value":"yes","interrupt_id":"i1"}']);
  stream.response.write(frame(2, "run.resumed", { interrupt_id: "i1" }));
  assert.equal((await probe.until(({ status }) => status === "running")).interrupt, null);
  await probe.view.cancel("enough");
  assert.equal(site.seen[2]?.body, '{"reason":"enough"}');
  stream.response.write(frame(3, "run.cancelled", { error: "", reason: "" }));
  await probe.until(({ status }) => status === "cancelled");
});

test("unmounting closes the connection and renders nothing more", limit, async (t) => {
  const site = await Site.start(t, (exchange) => beginStream(exchange).write(frame(1, "assistant.delta", { content: "a" })));
  const probe = new Probe(t, site);
  await probe.render(RUN_ID, { batchMs: 60_000 });
  await site.until(() => site.seen.length === 1);
  await probe.unmount();
  const renders = probe.views.length;
  await site.until(() => site.open === 0);
  assert.equal(probe.views.length, renders);
});

test("what came just before a component was hidden is shown when it is back", limit, async (t) => {
  const site = await Site.start(
    t,
    inTurn(
      (exchange) => beginStream(exchange).end(frame(1, "run.interrupted", { interrupt_id: "i1", payload: "ok?" })),
      (exchange) => beginStream(exchange),
    ),
  );
  const probe = new Probe(t, site);
  const options = { batchMs: 60_000 };
  await probe.render(RUN_ID, { ...options, mode: "visible" });
  // The second request is made behind the event.
  await site.until(() => site.seen.length === 2);
  assert.equal(probe.view.status, "running");
  await probe.render(RUN_ID, { ...options, mode: "hidden" });
  await site.until(() => site.open === 0);
  await probe.render(RUN_ID, { ...options, mode: "visible" });
  assert.equal(probe.view.status, "waiting");
  await site.until(() => site.seen.length === 3);
  assert.equal(site.seen[2]?.request.headers["last-event-id"], "1");
});

test("another run begins with nothing of the first, whose connection is closed", limit, async (t) => {
  const site = await Site.start(t, (exchange) => {
    const content = exchange.url.pathname.includes(OTHER_ID) ? "second" : "first";
    beginStream(exchange).write(frame(1, "assistant.message", { content }));
  });
  const probe = new Probe(t, site);
  await probe.render(RUN_ID);
  await probe.until(({ text }) => text === "first");
  const before = probe.views.length;
  await probe.render(OTHER_ID);
  await probe.until(({ text }) => text === "second");
  assert.ok(probe.views.slice(before).every(({ text }) => text !== "first"));
  await site.until(() => site.open === 1);
  assert.equal(site.seen[0]?.response.writableFinished, false);
});

test("StrictMode opens one connection and repeats nothing", limit, async (t) => {
  const site = await Site.start(t, (exchange) => beginStream(exchange).write(frame(1, "a") + frame(2, "run.succeeded")));
  const probe = new Probe(t, site);
  await probe.render(RUN_ID, { strict: true });
  const view = await probe.until(({ status }) => status === "complete");
  assert.deepEqual(types(view), ["a", "run.succeeded"]);
  assert.equal(site.seen.length, 1);
});

test("many events at once are few renders, and pieces are kept only where that is wanted", limit, async (t) => {
  const count = 2000;
  const pieces = Array.from({ length: count }, (_, n) => frame(n + 1, "assistant.delta", { content: "x" })).join("");
  const site = await Site.start(t, (exchange) => beginStream(exchange).write(pieces + frame(count + 1, "run.succeeded")));
  for (const keepDeltas of [false, true]) {
    const probe = new Probe(t, site);
    await probe.render(RUN_ID, { keepDeltas, batchMs: 50 });
    const view = await probe.until(({ status }) => status === "complete");
    assert.equal(view.text.length, count);
    assert.equal(view.events.length, keepDeltas ? count + 1 : 1);
    assert.ok(probe.views.length < count / 10, `${probe.views.length} renders`);
  }
});

test("a render that brings nothing new leaves the view and its functions as they are", limit, async (t) => {
  const site = await Site.start(t, (exchange) => beginStream(exchange));
  const probe = new Probe(t, site);
  await probe.render(RUN_ID);
  const before = probe.view;
  await probe.render(RUN_ID);
  assert.equal(probe.view, before);
  await site.until(() => site.seen.length === 1);
});

test("on a server the run is shown as it begins, and nothing is asked", limit, async (t) => {
  const site = await Site.start(t, (exchange) => beginStream(exchange));
  const client = new AgentRuntimeClient({ baseUrl: site.baseUrl });
  const Show = (): string => useAgentRun(RUN_ID, { client }).status;
  assert.equal(renderToString(createElement(Show)), "running");
  assert.equal(site.seen.length, 0);
});
