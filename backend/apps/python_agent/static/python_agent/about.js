"use strict";

const REFRESH_MS = 5000;
const find = (id) => document.getElementById(id);
const url = find("status").dataset.url;

function show(health) {
  const badge = find("status-badge");
  badge.textContent = health.connected ? "connected" : "cannot be reached";
  badge.className = `badge ${health.connected ? "good" : "bad"}`;
  find("status-version").textContent = health.version || "–";
  find("status-latency").textContent = health.latency_ms === null ? "–" : `${health.latency_ms} ms`;
  find("status-durability").textContent = health.durability || "–";
  find("status-namespace").textContent = health.namespace || "–";
  find("status-problem").hidden = !health.problem;
  find("status-problem").textContent = health.problem || "";
  const warnings = find("status-warnings");
  warnings.hidden = health.warnings.length === 0;
  warnings.replaceChildren(...health.warnings.map((text) => Object.assign(document.createElement("li"), {textContent: text})));
}

async function refresh() {
  try {
    const response = await fetch(url, {cache: "no-store"});
    show(await response.json());
  } catch {
    find("status-badge").textContent = "this site does not answer";
    find("status-badge").className = "badge bad";
  }
  setTimeout(refresh, REFRESH_MS);
}

refresh();
