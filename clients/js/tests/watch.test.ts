import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { AgentRuntimeClient, type WatchOptions } from "../src/client.js";
import { backOff, sleep } from "../src/delay.js";
import { ProblemError } from "../src/problem.js";
import { isEvent, type RunEvent } from "../src/types.js";
import type { WatchNotice } from "../src/watch.js";
import { answerJson, answerProblem, beginStream, cut, frame, inTurn, RUN_ID, Site, type Exchange } from "./site.js";

const limit = { timeout: 20_000 };

async function collect(site: Site, options: WatchOptions = {}): Promise<RunEvent[]> {
  const events: RunEvent[] = [];
  for await (const event of new AgentRuntimeClient({ baseUrl: site.baseUrl }).watchRun(RUN_ID, options)) events.push(event);
  return events;
}

const places = (events: RunEvent[]): number[] => events.map((event) => event.seq);
const asked = (site: Site): (string | undefined)[] => site.seen.map(({ request }) => request.headers["last-event-id"] as string | undefined);

test("a run is read to its end, and no further", limit, async (t) => {
  const site = await Site.start(t, (exchange) => {
    const response = beginStream(exchange);
    response.write(frame(2, "assistant.message", { content: "Hi", type: "mine" }));
    // The server need not close it.
    response.write(frame(5, "run.succeeded", { output: {} }) + frame(6, "late"));
  });
  const events = await collect(site);
  assert.deepEqual(places(events), [2, 5]);
  const [first] = events;
  assert.deepEqual(first && { ...first }, {
    content: "Hi",
    type: "assistant.message",
    seq: 2,
    run_id: RUN_ID,
    ts: "2025-01-02T03:04:05Z",
    visibility: "user",
    payload: { content: "Hi", type: "mine" },
  });
  assert.ok(first && isEvent(first, "assistant.message") && first.content === "Hi");
  await site.until(() => site.open === 0);
  assert.equal(site.seen.length, 1);
  const [{ request, url }] = site.seen as [Exchange];
  assert.equal(url.pathname, `/api/agents/runs/${RUN_ID}/events/`);
  assert.equal(request.headers.accept, "text/event-stream");
  assert.equal(request.headers["last-event-id"], undefined);
});

for (const type of ["run.succeeded", "run.failed", "run.cancelled", "run.timed_out"]) {
  test(`${type} ends the iteration`, limit, async (t) => {
    const site = await Site.start(t, (exchange) => beginStream(exchange).write(frame(1, type)));
    assert.deepEqual(places(await collect(site)), [1]);
  });
}

test("connections cut anywhere leave no gap and no repeat", limit, async (t) => {
  const log = [frame(1, "run.started"), frame(4, "a", { text: "ä" }), frame(5, "b"), frame(9, "run.succeeded")];
  const bytes = Buffer.from(log.join(""));
  let end = 0;
  const site = await Site.start(t, (exchange) => {
    const after = exchange.request.headers["last-event-id"];
    const behind = log.findIndex((block) => block.startsWith(`id: ${after}\n`)) + 1;
    const begin = Buffer.byteLength(log.slice(0, behind).join(""));
    end = Math.max(end, begin) + 5;
    if (end < bytes.length) cut(beginStream(exchange, 0), bytes.subarray(begin, end));
    else beginStream(exchange).write(bytes.subarray(begin));
  });
  assert.deepEqual(places(await collect(site)), [1, 4, 5, 9]);
});

test("a block that was cut off is read again, from the last whole one", limit, async (t) => {
  const site = await Site.start(
    t,
    inTurn(
      (exchange) => cut(beginStream(exchange), frame(1, "run.started") + frame(4, "a").slice(0, -1)),
      (exchange) => cut(beginStream(exchange), frame(4, "a") + frame(5, "b").slice(0, 9)),
      (exchange) => beginStream(exchange).end(frame(5, "b")),
      (exchange) => beginStream(exchange).end(frame(9, "run.succeeded")),
    ),
  );
  assert.deepEqual(places(await collect(site)), [1, 4, 5, 9]);
  assert.deepEqual(asked(site), [undefined, "1", "4", "5"]);
});

test("what a server repeats is dropped", limit, async (t) => {
  const site = await Site.start(
    t,
    inTurn(
      (exchange) => cut(beginStream(exchange), frame(1, "a") + frame(2, "b")),
      (exchange) => beginStream(exchange).write(frame(1, "a") + frame(2, "b") + frame(3, "c") + frame(3, "c") + frame(4, "run.failed")),
    ),
  );
  assert.deepEqual(places(await collect(site)), [1, 2, 3, 4]);
});

test("reading begins behind a given place, and an id without an event moves it", limit, async (t) => {
  const site = await Site.start(
    t,
    inTurn(
      (exchange) => beginStream(exchange).end("id: 12\n: heartbeat\n\n"),
      (exchange) => beginStream(exchange).write(frame(13, "run.succeeded")),
    ),
  );
  assert.deepEqual(places(await collect(site, { after: 10 })), [13]);
  assert.deepEqual(asked(site), ["10", "12"]);
});

test("204 is the end: it has been seen", limit, async (t) => {
  const site = await Site.start(t, ({ response }) => response.writeHead(204).end());
  assert.deepEqual(await collect(site, { after: 3 }), []);
});

test("levels are asked for", limit, async (t) => {
  const site = await Site.start(t, (exchange) => beginStream(exchange).write(frame(1, "run.succeeded")));
  await collect(site, { includeDebug: true, includeAll: true });
  assert.equal(site.seen[0]?.url.search, "?include_debug=true&include_all=true");
});

/** Puts the time forward by hand: `tick` after what is at hand has been done. */
function holdTime(t: TestContext): { now: (milliseconds: number) => void; soon: (milliseconds: number) => void } {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const now = (milliseconds: number): void => t.mock.timers.tick(milliseconds);
  return { now, soon: (milliseconds) => void setImmediate(() => now(milliseconds)) };
}

test("a connection without a sign of life for 45 s is given up", limit, async (t) => {
  const time = holdTime(t);
  const errors: unknown[] = [];
  const site = await Site.start(
    t,
    inTurn(
      (exchange) => beginStream(exchange).write(frame(1, "a")),
      // Also one that does not even answer.
      () => time.now(45_000),
      (exchange) => beginStream(exchange).write(frame(2, "run.succeeded")),
    ),
  );
  const onNotice = (notice: WatchNotice): void => {
    if (notice.kind !== "reconnecting") return;
    errors.push((notice.error as Error).name);
    time.soon(notice.delayMs);
  };
  const events: RunEvent[] = [];
  for await (const event of new AgentRuntimeClient({ baseUrl: site.baseUrl }).watchRun(RUN_ID, { onNotice })) {
    events.push(event);
    if (event.seq === 1) time.soon(45_000);
  }
  assert.deepEqual(places(events), [1, 2]);
  assert.deepEqual(asked(site), [undefined, "1", "1"]);
  assert.deepEqual(errors, ["TimeoutError", "TimeoutError"]);
});

test("heartbeats keep a silent connection", limit, async (t) => {
  const time = holdTime(t);
  const encoder = new TextEncoder();
  let requests = 0;
  let beats = 0;
  const own: typeof fetch = (_, init) => {
    requests++;
    const source: UnderlyingDefaultSource<Uint8Array> = {
      start: (controller) => init?.signal?.addEventListener("abort", () => controller.error(init.signal?.reason)),
      // Only when there is somebody who waits for it.
      pull: (controller) => {
        time.now(44_999);
        controller.enqueue(encoder.encode(++beats < 20 ? ": heartbeat\n\n" : frame(1, "run.succeeded")));
      },
    };
    const body = new ReadableStream(source, { highWaterMark: 0 });
    return Promise.resolve(new Response(body, { headers: { "Content-Type": "text/event-stream" } }));
  };
  const events: RunEvent[] = [];
  for await (const event of new AgentRuntimeClient({ fetch: own }).watchRun(RUN_ID)) events.push(event);
  assert.deepEqual([places(events), beats, requests], [[1], 20, 1]);
});

test("a consumer that takes its time does not wake the watchdog", limit, async (t) => {
  const time = holdTime(t);
  const site = await Site.start(t, (exchange) => beginStream(exchange).write(frame(1, "a") + frame(2, "run.succeeded")));
  for await (const event of new AgentRuntimeClient({ baseUrl: site.baseUrl }).watchRun(RUN_ID)) {
    if (event.seq === 1) time.now(90_000);
  }
  assert.equal(site.seen.length, 1);
});

test("a site that is busy is asked again, as late as it wants", limit, async (t) => {
  const notices: WatchNotice[] = [];
  const site = await Site.start(
    t,
    inTurn(
      (exchange) => beginStream(exchange, 3).end(frame(1, "a")),
      (exchange) => answerProblem(exchange, 429, "TOO_MANY_STREAMS", { "Retry-After": "1" }),
      ({ response }) => response.writeHead(502).end("<html>"),
      (exchange) => beginStream(exchange).write(frame(2, "run.succeeded")),
    ),
  );
  assert.deepEqual(places(await collect(site, { onNotice: (notice) => notices.push(notice) })), [1, 2]);
  const waits = notices.flatMap((notice) => (notice.kind === "reconnecting" ? [notice] : []));
  assert.deepEqual(waits.map(({ error }) => (error as ProblemError | null)?.code), [undefined, "TOO_MANY_STREAMS", "HTTP_502"]);
  const [ended, busy, broken] = waits.map(({ delayMs }) => delayMs) as [number, number, number];
  assert.ok(ended >= 3 && ended <= 4.5, `${ended}`);
  assert.ok(busy >= 1000 && busy <= 1500, `${busy}`);
  assert.ok(broken >= 3 && broken <= 18, `${broken}`);
});

test("waits double from what the server wants, are spread, and end at half a minute", () => {
  for (const [failures, baseMs, least] of [
    [1, 2000, 2000],
    [2, 2000, 4000],
    [4, 2000, 16_000],
    [50, 2000, 30_000],
    [1, 60_000, 60_000],
    [1, 0, 0],
  ] as const) {
    const waits = Array.from({ length: 200 }, () => backOff(failures, baseMs));
    assert.ok(waits.every((wait) => wait >= least && wait <= least * 1.5));
    assert.ok(least === 0 || new Set(waits).size > 1);
  }
});

test("a wait that no timer can hold is still a wait", async () => {
  const abort = new AbortController();
  setTimeout(() => abort.abort(new Error("still waiting")), 20);
  await assert.rejects(sleep(2 ** 40, abort.signal), { message: "still waiting" });
});

test("a refusal for good ends the iteration", limit, async (t) => {
  const site = await Site.start(t, (exchange) => answerProblem(exchange, 404, "RUN_NOT_FOUND"));
  await assert.rejects(collect(site), (error) => error instanceof ProblemError && error.code === "RUN_NOT_FOUND");
  assert.equal(site.seen.length, 1);
});

test("an answer that is no stream is refused", limit, async (t) => {
  const site = await Site.start(t, ({ response }) => response.writeHead(200, { "Content-Type": "text/html" }).end("<form>"));
  await assert.rejects(collect(site), { code: "NOT_AN_EVENT_STREAM" });
});

test("data that is no JSON is refused", limit, async (t) => {
  const site = await Site.start(t, (exchange) => beginStream(exchange).write("data: {\n\n"));
  await assert.rejects(collect(site), { code: "NOT_AN_EVENT" });
});

test("after so many failures in a row it gives up", limit, async (t) => {
  const site = await Site.start(t, (exchange) => cut(beginStream(exchange, 0)));
  await assert.rejects(collect(site, { maxFailures: 3 }));
  assert.equal(site.seen.length, 4);
});

test("a site that takes requests and never answers is given up after so many", limit, async (t) => {
  const time = holdTime(t);
  const silent = (): void => time.now(45_000);
  const site = await Site.start(t, inTurn(silent, silent, silent, (exchange) => beginStream(exchange).write(frame(1, "run.succeeded"))));
  t.mock.method(performance, "now", () => 45_000 * site.seen.length);
  const onNotice = (notice: WatchNotice): void => {
    if (notice.kind === "reconnecting") time.soon(notice.delayMs);
  };
  await assert.rejects(collect(site, { maxFailures: 2, onNotice }), { name: "TimeoutError" });
  assert.equal(site.seen.length, 3);
});

test("what a server says of itself is told, and is no event", limit, async (t) => {
  const problem = { status: 410, code: "EVENTS_TRUNCATED", detail: "Gone." };
  const notices: WatchNotice[] = [];
  const site = await Site.start(
    t,
    inTurn(
      (exchange) => {
        const waiting = JSON.stringify({ type: "run.waiting_for_runtime", run_id: RUN_ID });
        beginStream(exchange).end(`event: run.waiting_for_runtime\ndata: ${waiting}\n\ndata: {"type": "of later"}\n\ndata: 1\n\n`);
      },
      (exchange) => beginStream(exchange).end(`id: 20\nevent: stream.error\ndata: ${JSON.stringify({ type: "stream.error", problem })}\n\n`),
      (exchange) => beginStream(exchange).write(frame(21, "run.succeeded")),
    ),
  );
  assert.deepEqual(places(await collect(site, { onNotice: (notice) => notices.push(notice) })), [21]);
  assert.deepEqual(asked(site), [undefined, undefined, "20"]);
  assert.deepEqual(
    notices.map(({ kind }) => kind),
    ["open", "waiting_for_runtime", "reconnecting", "open", "truncated", "reconnecting", "open"],
  );
});

test("a stream that cannot go on says why", limit, async (t) => {
  const failure = (status: number): string => `data: ${JSON.stringify({ type: "stream.error", problem: { status, code: `C${status}` } })}\n\n`;
  const site = await Site.start(
    t,
    inTurn(
      (exchange) => beginStream(exchange).end(failure(503)),
      (exchange) => beginStream(exchange).end(failure(403)),
    ),
  );
  await assert.rejects(collect(site), { code: "C403" });
  assert.equal(site.seen.length, 2);
});

test("leaving the loop closes the connection", limit, async (t) => {
  const site = await Site.start(t, (exchange) => beginStream(exchange).write(frame(1, "a") + frame(2, "b")));
  for await (const event of new AgentRuntimeClient({ baseUrl: site.baseUrl }).watchRun(RUN_ID)) {
    assert.equal(event.seq, 1);
    break;
  }
  await site.until(() => site.open === 0);
});

test("a signal ends a wait for an event, one between connections, and what is at hand", limit, async (t) => {
  const site = await Site.start(t, (exchange) => beginStream(exchange, 60_000).write(frame(1, "a") + frame(2, "b")));
  for (const moment of ["at hand", "waiting", "between"]) {
    const abort = new AbortController();
    const reason = new Error(moment);
    const seen: number[] = [];
    const watch = async (): Promise<void> => {
      const onNotice = (notice: WatchNotice): void => {
        if (notice.kind === "reconnecting") abort.abort(reason);
      };
      for await (const { seq } of new AgentRuntimeClient({ baseUrl: site.baseUrl }).watchRun(RUN_ID, { signal: abort.signal, onNotice })) {
        seen.push(seq);
        if (moment === "at hand") abort.abort(reason);
        if (moment === "waiting" && seq === 2) setImmediate(() => abort.abort(reason));
        if (moment === "between" && seq === 2) site.seen.at(-1)?.response.end();
      }
    };
    await assert.rejects(watch, (error) => error === reason);
    assert.deepEqual(seen, moment === "at hand" ? [1] : [1, 2]);
    await site.until(() => site.open === 0);
  }
  const over = AbortSignal.abort(new Error("before"));
  await assert.rejects(collect(site, { signal: over }), { message: "before" });
  assert.equal(site.seen.length, 3);
});

test("by ticket: the runtime is asked, and Django alone gets what is for it", limit, async (t) => {
  let tickets = 0;
  const runtime = await Site.start(
    t,
    inTurn(
      (exchange) => cut(beginStream(exchange), frame(1, "a")),
      (exchange) => answerProblem(exchange, 401, "TICKET_EXPIRED"),
      (exchange) => beginStream(exchange).write(frame(2, "run.succeeded")),
    ),
  );
  const django = await Site.start(t, (exchange) => {
    const path = `/v1/runs/${RUN_ID}/events?ticket=t${++tickets}`;
    answerJson(exchange, { url: runtime.origin + path, path, expires_at: "2030-01-01T00:00:00Z" }, 201);
  });
  const client = new AgentRuntimeClient({ baseUrl: django.baseUrl, anonymousToken: "anon", headers: () => ({ Authorization: "Token x" }) });
  const events: RunEvent[] = [];
  for await (const event of client.watchRun(RUN_ID, { via: "ticket", includeDebug: true })) events.push(event);
  assert.deepEqual(places(events), [1, 2]);
  assert.deepEqual(
    runtime.seen.map(({ url }) => url.search),
    ["?ticket=t1", "?ticket=t1&last_event_id=1", "?ticket=t2&last_event_id=1"],
  );
  assert.deepEqual(django.seen.map(({ url }) => url.pathname + url.search), Array(2).fill(`/api/agents/runs/${RUN_ID}/stream-ticket/?include_debug=true`));
  for (const { request } of django.seen) assert.equal(request.headers.authorization, "Token x");
  for (const { request } of runtime.seen) {
    // Any other header would make a browser ask first.
    assert.deepEqual(["authorization", "x-anonymous-token", "last-event-id", "cookie"].filter((name) => name in request.headers), []);
  }
});

test("by ticket: a new one that is refused ends it; without an address the client's is taken", limit, async (t) => {
  const runtime = await Site.start(t, (exchange) => answerProblem(exchange, 401, "TICKET_INVALID"));
  const django = await Site.start(t, (exchange) => answerJson(exchange, { url: null, path: "/v1/x?ticket=t", expires_at: "" }, 201));
  const watch = (client: AgentRuntimeClient): Promise<unknown> => client.watchRun(RUN_ID, { via: "ticket" }).next();
  await assert.rejects(watch(new AgentRuntimeClient({ baseUrl: django.baseUrl, streamUrl: `${runtime.origin}/` })), { code: "TICKET_INVALID" });
  assert.equal(runtime.seen[0]?.url.pathname, "/v1/x");
  assert.equal(runtime.seen.length, 1);
  await assert.rejects(watch(new AgentRuntimeClient({ baseUrl: django.baseUrl })), { code: "NO_STREAM_URL" });
});

test("1,000 events through a site that cuts every hundredth one in two", limit, async (t) => {
  const count = 1000;
  const site = await Site.start(t, (exchange) => {
    const response = beginStream(exchange, 0);
    const after = Number(exchange.request.headers["last-event-id"] ?? 0);
    const next = Array.from({ length: 100 }, (_, n) => after + 1 + n).filter((seq) => seq <= count);
    const text = next.map((seq) => frame(seq, seq === count ? "run.succeeded" : "assistant.delta", { content: "x" })).join("");
    if (after + 100 >= count) response.write(text);
    else cut(response, text.slice(0, -20));
  });
  const events = await collect(site);
  assert.deepEqual(places(events), Array.from({ length: count }, (_, n) => n + 1));
});
