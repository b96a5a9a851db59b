import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { JSDOM } from "jsdom";
import { AgentRuntimeClient } from "../src/client.js";
import { ProblemError } from "../src/problem.js";
import { answerJson, answerProblem, inTurn, RUN_ID, Site, type Exchange } from "./site.js";

const limit = { timeout: 20_000 };
const run = { agent_key: "chat", messages: [{ role: "user", content: "Hi" }] };

/** Stands in for the page that a script runs in. */
function openPage(t: TestContext, url: string, cookie?: string): void {
  const { window } = new JSDOM("", { url });
  if (cookie) window.document.cookie = cookie;
  Object.assign(globalThis, { document: window.document, location: window.location });
  t.after(() => {
    Reflect.deleteProperty(globalThis, "document");
    Reflect.deleteProperty(globalThis, "location");
  });
}

test("each call asks what the API has", limit, async (t) => {
  const site = await Site.start(t, (exchange) => answerJson(exchange, { results: [], next: null, previous: null, messages: [{ role: "user" }] }));
  const client = new AgentRuntimeClient({ baseUrl: `${site.baseUrl}/` });
  await client.createRun(run, { idempotencyKey: "k" });
  await client.getRun(RUN_ID);
  await client.listRuns({ status: "failed", page_size: 5, cursor: "c=" });
  await client.cancelRun(RUN_ID, "enough");
  await client.resumeRun(RUN_ID, { ok: true }, "i1");
  await client.resumeRun(RUN_ID, undefined);
  await client.retryRun(RUN_ID);
  await client.createConversation({ title: "T" });
  await client.getConversation("c/1");
  await client.updateConversation("c/1", { title: "U" });
  await client.listConversations({ agent_key: "chat" });
  assert.deepEqual(await client.listMessages("c/1"), [{ role: "user" }]);
  await client.createStreamTicket(RUN_ID, { includeAll: true });
  await client.deleteRun(RUN_ID);
  await client.deleteConversation("c/1");
  const of = (path: string): string => `/api/agents${path}`;
  const one = `/runs/${RUN_ID}`;
  assert.deepEqual(
    site.seen.map(({ request, url, body }) => [request.method, url.pathname + url.search, body]),
    [
      ["POST", of("/runs/"), JSON.stringify(run)],
      ["GET", of(`${one}/`), ""],
      ["GET", of("/runs/?status=failed&page_size=5&cursor=c%3D"), ""],
      ["POST", of(`${one}/cancel/`), '{"reason":"enough"}'],
      ["POST", of(`${one}/resume/`), '{"value":{"ok":true},"interrupt_id":"i1"}'],
      ["POST", of(`${one}/resume/`), '{"value":null}'],
      ["POST", of(`${one}/retry/`), "{}"],
      ["POST", of("/conversations/"), '{"title":"T"}'],
      ["GET", of("/conversations/c%2F1/"), ""],
      ["PATCH", of("/conversations/c%2F1/"), '{"title":"U"}'],
      ["GET", of("/conversations/?agent_key=chat"), ""],
      ["GET", of("/conversations/c%2F1/messages/"), ""],
      ["POST", of(`${one}/stream-ticket/?include_all=true`), ""],
      ["DELETE", of(`${one}/`), ""],
      ["DELETE", of("/conversations/c%2F1/"), ""],
    ],
  );
  for (const { request, body } of site.seen) {
    assert.equal(request.headers.accept, "application/json");
    assert.equal(request.headers["content-type"], body ? "application/json" : undefined);
  }
  assert.equal(site.seen[0]?.request.headers["idempotency-key"], "k");
});

test("a run that is sent twice is sent with the same key, and two runs with two", limit, async (t) => {
  const site = await Site.start(
    t,
    inTurn(
      ({ request }) => request.socket.destroy(),
      (exchange) => answerProblem(exchange, 503, "UNAVAILABLE", { "Retry-After": "0" }),
      (exchange) => answerJson(exchange, { id: RUN_ID }, 201),
    ),
  );
  const client = new AgentRuntimeClient({ baseUrl: site.baseUrl });
  assert.equal((await client.createRun(run)).id, RUN_ID);
  await client.createRun(run);
  const [first, second, third, other] = site.seen.map(({ request }) => request.headers["idempotency-key"]);
  assert.ok(first);
  assert.deepEqual([second, third], [first, first]);
  assert.notEqual(other, first);
});

test("keys are made also where there is no randomUUID", limit, async (t) => {
  const site = await Site.start(t, (exchange) => answerJson(exchange, {}, 201));
  Object.defineProperty(crypto, "randomUUID", { value: undefined, configurable: true });
  t.after(() => Reflect.deleteProperty(crypto, "randomUUID"));
  await new AgentRuntimeClient({ baseUrl: site.baseUrl }).createRun(run);
  assert.match(String(site.seen[0]?.request.headers["idempotency-key"]), /^[0-9a-f]{32}$/);
});

const calls: Record<string, { call: (client: AgentRuntimeClient) => Promise<unknown>; tries: number }> = {
  getRun: { call: (client) => client.getRun(RUN_ID), tries: 3 },
  createRun: { call: (client) => client.createRun(run), tries: 3 },
  cancelRun: { call: (client) => client.cancelRun(RUN_ID), tries: 3 },
  resumeRun: { call: (client) => client.resumeRun(RUN_ID, 1), tries: 1 },
  "resumeRun with the question": { call: (client) => client.resumeRun(RUN_ID, 1, "i1"), tries: 3 },
  retryRun: { call: (client) => client.retryRun(RUN_ID), tries: 3 },
  createConversation: { call: (client) => client.createConversation(), tries: 1 },
  getConversation: { call: (client) => client.getConversation("c"), tries: 3 },
  updateConversation: { call: (client) => client.updateConversation("c", { title: "T" }), tries: 3 },
  deleteRun: { call: (client) => client.deleteRun(RUN_ID), tries: 3 },
  deleteConversation: { call: (client) => client.deleteConversation("c"), tries: 3 },
};

for (const [name, { call, tries }] of Object.entries(calls)) {
  test(`${name} is tried ${tries} times while the site is away`, limit, async (t) => {
    const site = await Site.start(t, ({ response }) => response.writeHead(502, { "Content-Type": "text/html" }).end("<h1>"));
    await assert.rejects(call(new AgentRuntimeClient({ baseUrl: site.baseUrl })), { code: "HTTP_502", title: "Bad Gateway", request_id: "" });
    assert.equal(site.seen.length, tries);
  });
}

const deleted = ({ response }: Exchange): unknown => response.writeHead(204).end();
const notFound = (exchange: Exchange): void => answerProblem(exchange, 404, "RUN_NOT_FOUND");

test("what was deleted has no answer, and is gone also where the first one was lost", limit, async (t) => {
  const lost = ({ request }: Exchange): unknown => request.socket.destroy();
  const site = await Site.start(t, inTurn(deleted, lost, notFound, notFound));
  const client = new AgentRuntimeClient({ baseUrl: site.baseUrl });
  assert.equal(await client.deleteRun(RUN_ID), undefined);
  assert.equal(await client.deleteRun(RUN_ID), undefined);
  assert.equal(site.seen.length, 3);
  await assert.rejects(client.deleteRun(RUN_ID), { code: "RUN_NOT_FOUND" });
});

test("a refusal is a problem with all that the body says, and is not tried again", limit, async (t) => {
  const body = {
    type: "urn:agentruntime:problem:invalid-argument",
    title: "Bad Request",
    status: 400,
    detail: "The request does not fit; see errors.",
    code: "INVALID_ARGUMENT",
    request_id: "abc",
    errors: [{ field: "messages.0", detail: "A message has a role." }],
    known: "chat",
  };
  const site = await Site.start(t, (exchange) => answerJson(exchange, body, 400));
  await assert.rejects(new AgentRuntimeClient({ baseUrl: site.baseUrl }).createRun(run), (error) => {
    assert.ok(error instanceof ProblemError && error instanceof Error);
    const { type, title, status, detail, code, request_id, errors } = error;
    assert.deepEqual({ type, title, status, detail, code, request_id, errors, known: error.body.known }, body);
    assert.equal(error.message, body.detail);
    return true;
  });
  assert.equal(site.seen.length, 1);
});

test("a wait that is too long is the caller's", limit, async (t) => {
  const site = await Site.start(t, (exchange) => answerProblem(exchange, 429, "THROTTLED", { "Retry-After": "3600" }));
  await assert.rejects(new AgentRuntimeClient({ baseUrl: site.baseUrl }).getRun(RUN_ID), { code: "THROTTLED", retryAfterSeconds: 3600 });
  assert.equal(site.seen.length, 1);
});

test("an answer that is no JSON is refused", limit, async (t) => {
  const site = await Site.start(t, ({ response }) => response.writeHead(200, { "Content-Type": "text/html" }).end("<form>"));
  await assert.rejects(new AgentRuntimeClient({ baseUrl: site.baseUrl }).getRun(RUN_ID), { code: "NOT_JSON" });
});

test("a try that takes too long ends, and so does one whose signal is aborted", limit, async (t) => {
  const site = await Site.start(t, () => undefined);
  const client = new AgentRuntimeClient({ baseUrl: site.baseUrl, timeoutMs: 30 });
  await assert.rejects(client.resumeRun(RUN_ID, 1), { name: "TimeoutError" });
  const abort = new AbortController();
  const patient = new AgentRuntimeClient({ baseUrl: site.baseUrl }).getRun("patient", { signal: abort.signal });
  void site.until(() => site.seen.some(({ url }) => url.pathname.includes("patient"))).then(() => abort.abort(new Error("left")));
  await assert.rejects(patient, { message: "left" });
  await site.until(() => site.open === 0);
});

test("pages are walked by cursor, whatever host the site believes to be", limit, async (t) => {
  const site = await Site.start(t, (exchange) => {
    const last = exchange.url.searchParams.get("cursor") === "a b+c=";
    const next = last ? null : "http://inside:8000/api/agents/runs/?cursor=a+b%2Bc%3D&page_size=1";
    answerJson(exchange, { results: [{ id: RUN_ID }], next, previous: null });
  });
  const client = new AgentRuntimeClient({ baseUrl: site.baseUrl });
  const first = await client.listRuns({ page_size: 1 });
  assert.equal(first.next, "a b+c=");
  assert.equal((await client.listRuns({ page_size: 1, cursor: first.next })).next, null);
});

const csrf = ({ request }: Exchange): unknown => request.headers["x-csrftoken"];

test("the CSRF cookie goes to the page's own origin, and only with what changes something", limit, async (t) => {
  const site = await Site.start(t, (exchange) => answerJson(exchange, {}));
  openPage(t, `${site.origin}/chat/`, "csrftoken=a%2Fb; path=/");
  const client = new AgentRuntimeClient({ baseUrl: site.baseUrl });
  await client.cancelRun(RUN_ID);
  await client.getRun(RUN_ID);
  await client.deleteRun(RUN_ID);
  const own = new AgentRuntimeClient({ baseUrl: site.baseUrl, headers: () => ({ "x-csrftoken": "own" }) });
  await own.cancelRun(RUN_ID);
  await new AgentRuntimeClient({ baseUrl: site.baseUrl, csrf: "off" }).cancelRun(RUN_ID);
  await new AgentRuntimeClient({ baseUrl: site.baseUrl, csrf: () => "from a form" }).cancelRun(RUN_ID);
  assert.deepEqual(site.seen.map(csrf), ["a/b", undefined, "a/b", "own", undefined, "from a form"]);
});

test("another origin does not learn the CSRF token", limit, async (t) => {
  const site = await Site.start(t, (exchange) => answerJson(exchange, {}));
  openPage(t, "https://shop.example/", "csrftoken=secret");
  await new AgentRuntimeClient({ baseUrl: site.baseUrl }).cancelRun(RUN_ID);
  assert.deepEqual(site.seen.map(csrf), [undefined]);
});

test("headers are asked for each time; the anonymous token is one", limit, async (t) => {
  const site = await Site.start(t, (exchange) => answerJson(exchange, {}));
  let count = 0;
  const client = new AgentRuntimeClient({
    baseUrl: site.baseUrl,
    anonymousToken: "anon",
    headers: () => Promise.resolve({ Authorization: `Token ${++count}` }),
  });
  await client.getRun(RUN_ID);
  await client.getRun(RUN_ID);
  assert.deepEqual(
    site.seen.map(({ request }) => [request.headers.authorization, request.headers["x-anonymous-token"]]),
    [
      ["Token 1", "anon"],
      ["Token 2", "anon"],
    ],
  );
});

test("a fetch of one's own is used, with addresses as they were given", limit, async () => {
  const seen: unknown[] = [];
  const own: typeof fetch = (input, init) => {
    seen.push([input, init?.method, init?.credentials]);
    return Promise.resolve(Response.json({}));
  };
  await new AgentRuntimeClient({ fetch: own, credentials: "include" }).getRun("a");
  await new AgentRuntimeClient({ fetch: own }).getRun("b");
  assert.deepEqual(seen, [
    ["/api/agents/runs/a/", "GET", "include"],
    ["/api/agents/runs/b/", "GET", "same-origin"],
  ]);
});

test("addresses for EventSource", () => {
  const plain = new AgentRuntimeClient();
  assert.equal(plain.eventSourceUrl("r"), "/api/agents/runs/r/events/?unnamed=1");
  assert.equal(plain.eventSourceUrl("r", { named: true }), "/api/agents/runs/r/events/");
  const anonymous = new AgentRuntimeClient({ baseUrl: "https://x.example/api", anonymousToken: "a&b" });
  assert.equal(
    anonymous.eventSourceUrl("r", { after: 7, includeDebug: true }),
    "https://x.example/api/runs/r/events/?include_debug=true&last_event_id=7&unnamed=1&anonymous_token=a%26b",
  );
});
