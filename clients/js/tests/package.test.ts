import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { JSDOM } from "jsdom";
import { answerJson, beginStream, frame, inTurn, RUN_ID, Site } from "./site.js";

const NAME = "@djangobridge/agent-runtime";
const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const read = (path: string): string => readFileSync(join(root, path), "utf8");

/** The code of a language in the README. */
function blocks(...languages: string[]): string[] {
  return [...read("README.md").matchAll(/^```(\w+)\n(.*?)^```$/gms)].flatMap(([, language, code]) =>
    languages.includes(language ?? "") ? [code ?? ""] : [],
  );
}

test("the built package is imported by its name", async () => {
  const index = (await import(NAME)) as Record<string, unknown>;
  assert.deepEqual(Object.keys(index).sort(), [
    "AgentRuntimeClient",
    "ProblemError",
    "RunFailedError",
    "SseParser",
    "TERMINAL_TYPES",
    "Transcript",
    "isEvent",
  ]);
  assert.deepEqual(Object.keys((await import(`${NAME}/react`)) as object), ["useAgentRun"]);
});

test("nothing but the hook needs React, and nothing needs anything else", () => {
  const { dependencies, version } = JSON.parse(read("package.json")) as { dependencies?: object; version: string };
  assert.equal(dependencies, undefined);
  assert.equal(version, read("../../VERSION").trim());
  for (const file of ["client", "delay", "index", "problem", "sse", "transcript", "types", "watch"]) {
    const imported = [...read(`dist/${file}.js`).matchAll(/ from "(.*?)"/g)].map(([, path]) => path ?? "");
    assert.ok(imported.every((path) => path.startsWith("./") && path !== "./react.js"), `${file} imports ${imported.join(", ")}`);
  }
});

test("the package is packed and installed as the README says", { timeout: 120_000 }, (t) => {
  const home = mkdtempSync(join(tmpdir(), "agent-runtime-"));
  t.after(() => rmSync(home, { recursive: true }));
  const project = join(home, "my-frontend");
  mkdirSync(project);
  writeFileSync(join(project, "package.json"), "{}");
  const [block = ""] = blocks("bash");
  const [build, ...rest] = block.trim().split("\n");
  // These tests were built that way, and a second time would take away what the others read.
  assert.equal(build, "cd clients/js && npm ci && npm run build");
  const own = { HOME: home, npm_config_ignore_scripts: "true", npm_config_offline: "true" };
  const installed = spawnSync("bash", ["-euc", rest.join("\n")], { cwd: root, env: { ...process.env, ...own }, encoding: "utf8" });
  assert.equal(installed.status, 0, installed.stderr);
  const script = `import { AgentRuntimeClient } from "${NAME}"; console.log(new AgentRuntimeClient().constructor.name)`;
  const used = spawnSync("node", ["--input-type=module", "--eval", script], { cwd: project, encoding: "utf8" });
  assert.equal(used.stdout, "AgentRuntimeClient\n", used.stderr);
});

test("the README's TypeScript is sound", { timeout: 120_000 }, () => {
  const folder = join(root, "build/readme");
  mkdirSync(folder, { recursive: true });
  const found = blocks("ts", "tsx");
  assert.ok(found.length > 0);
  // Each a module of its own.
  for (const [index, code] of found.entries()) writeFileSync(join(folder, `block${index}.tsx`), `${code}\nexport {};\n`);
  const compilerOptions = { noEmit: true, rootDir: "../..", jsx: "react-jsx", types: ["node", "react"], noUnusedLocals: false };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ extends: "../../tsconfig.json", compilerOptions, include: ["*.tsx"] }));
  const { status, stdout } = spawnSync(join(root, "node_modules/.bin/tsc"), ["-p", folder], { encoding: "utf8" });
  assert.equal(status, 0, stdout);
});

test("the README's page shows what an agent says", { timeout: 20_000 }, async (t) => {
  const site = await Site.start(
    t,
    inTurn(
      (exchange) => answerJson(exchange, { id: RUN_ID }, 201),
      (exchange) => beginStream(exchange).write(frame(1, "assistant.delta", { content: "Hel" }) + frame(2, "assistant.message", { content: "Hello!" }) + frame(3, "run.succeeded")),
    ),
  );
  const [page] = blocks("html");
  assert.ok(page);
  const { window } = new JSDOM(page, { url: `${site.origin}/` });
  const script = window.document.querySelector("script")?.textContent ?? "";
  const built = pathToFileURL(join(root, "dist/index.js")).href;
  const file = join(root, "build/page.mjs");
  writeFileSync(file, script.replace(/"\/static\/[^"]*\/index\.js"/, JSON.stringify(built)));
  const real = globalThis.fetch;
  Object.assign(globalThis, {
    document: window.document,
    location: window.location,
    // A page's addresses are relative to it.
    fetch: (path: string, init: RequestInit) => real(new URL(path, site.origin), init),
  });
  t.after(() => Object.assign(globalThis, { fetch: real, document: undefined, location: undefined }));
  await import(pathToFileURL(file).href);
  assert.match(window.document.body.textContent ?? "", /Hello!/);
  assert.doesNotMatch(window.document.body.textContent ?? "", /HelHello/);
});
