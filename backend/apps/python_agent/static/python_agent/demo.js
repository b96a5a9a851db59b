"use strict";

const MAX_SHOWN_EVENTS = 200;
const find = (id) => document.getElementById(id);
const urls = find("demo").dataset;

// What went wrong, as the problem details of the API word it.
class ApiProblem extends Error {
  constructor(problem) {
    const errors = (problem.errors || []).map((error) => `${error.field}: ${error.detail}`);
    super([problem.detail, ...errors].join("\n"));
    this.status = problem.status;
  }
}

function csrfToken() {
  return document.cookie.split("; ").find((cookie) => cookie.startsWith("csrftoken="))?.slice("csrftoken=".length) || "";
}

async function call(method, url, body, headers = {}) {
  const response = await fetch(url, {
    method,
    headers: {"Content-Type": "application/json", "X-CSRFToken": csrfToken(), ...headers},
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await response.text();
  let data = null;
  try {
    data = text ? JSON.parse(text) : null;
  } catch {
    data = {detail: `The site answered ${response.status} with something that is not JSON.`, status: response.status};
  }
  if (!response.ok) throw new ApiProblem(data);
  return {data, etag: response.headers.get("ETag")};
}

// Shows what `action` throws in `element`, and clears it otherwise.
async function report(element, action) {
  try {
    element.hidden = true;
    await action();
  } catch (error) {
    element.textContent = error.message;
    element.hidden = false;
  }
}

// An input to begin with: the schema's own example, else its required fields with empty values.
function exampleInput(schema) {
  if (schema.examples?.length) return schema.examples[0];
  const empty = {string: "text", integer: 1, number: 1, boolean: true, array: [], object: {}};
  const properties = Object.entries(schema.properties || {}).filter(([name]) => (schema.required || []).includes(name));
  const fields = properties.map(([name, property]) => [name, property.examples?.[0] ?? property.enum?.[0] ?? empty[property.type] ?? null]);
  return fields.length ? Object.fromEntries(fields) : {param1: "value1", param2: "value2"};
}

// Tasks

const choices = new Map();

function addChoices(group, url, owner, taskTypes) {
  for (const taskType of taskTypes) {
    const name = `${owner} ${taskType.task_type}`;
    choices.set(name, {url, ...taskType});
    group.append(new Option(taskType.task_type, name));
  }
}

function showChoice() {
  const choice = choices.get(find("task-choice").value);
  if (!choice) return;
  find("task-description").textContent = choice.description;
  find("task-input").value = JSON.stringify(exampleInput(choice.input_schema), null, 2);
}

async function loadChoices() {
  const [tasks, agents] = await Promise.all([call("GET", urls.tasksUrl), call("GET", urls.agentsUrl)]);
  const group = (label) => Object.assign(document.createElement("optgroup"), {label});
  const plain = group("Tasks");
  addChoices(plain, urls.tasksUrl, "", tasks.data.task_types);
  find("task-choice").append(plain);
  for (const agent of agents.data.agents) {
    const own = group(`${agent.agent_id} (model: ${agent.model})`);
    addChoices(own, `${urls.agentsUrl}${encodeURIComponent(agent.agent_id)}/tasks/`, agent.agent_id, agent.task_types);
    find("task-choice").append(own);
  }
  const first = [...choices.keys()].find((name) => name.endsWith(" example_task"));
  if (first) find("task-choice").value = first;
  showChoice();
}

// What an agent wrote is text for people: its explanation and files are shown with their line ends.
function describeOutput(output) {
  const {explanation, files, ...rest} = output;
  const written = (files || []).map((file) => `── ${file.path}\n${file.content}`);
  return [explanation, ...written, JSON.stringify(rest, null, 2)].filter(Boolean).join("\n\n");
}

async function runTask(event) {
  event.preventDefault();
  const choice = choices.get(find("task-choice").value);
  const output = find("task-output");
  find("task-run").disabled = true;
  output.textContent = "Running…";
  const start = performance.now();
  try {
    const input_data = JSON.parse(find("task-input").value);
    const {data} = await call("POST", choice.url, {task_type: choice.task_type, input_data, description: "from the demo page"});
    output.textContent = describeOutput(data.output);
  } catch (error) {
    output.textContent = error.message;
  }
  find("task-time").textContent = `${Math.round(performance.now() - start)} ms`;
  find("task-run").disabled = false;
}

// Events

function showEvent(message) {
  const event = JSON.parse(message.data);
  const part = (tag, className, textContent) => Object.assign(document.createElement(tag), {className, textContent});
  const item = document.createElement("li");
  item.append(
    part("span", "sequence", `#${event.sequence}`),
    part("b", "", event.type),
    part("time", "", new Date(event.time).toLocaleTimeString()),
    part("code", "", JSON.stringify(event.data)),
  );
  find("events").prepend(item);
  while (find("events").children.length > MAX_SHOWN_EVENTS) find("events").lastChild.remove();
  find("events-empty").hidden = true;
}

function watchEvents() {
  const badge = find("stream-badge");
  const mark = (text, kind) => { badge.textContent = text; badge.className = `badge ${kind}`; };
  // `named=false` makes every event an unnamed message: EventSource has no listener for any name.
  const source = new EventSource(`${urls.streamUrl}?event_type=*&named=false`);
  source.onopen = () => mark("live", "good");
  source.onmessage = showEvent;
  source.onerror = () => mark(source.readyState === EventSource.CLOSED ? "closed" : "reconnecting…", "bad");
}

async function publish(event) {
  event.preventDefault();
  await report(find("event-problem"), async () => {
    const body = {event_type: find("event-type").value, data: JSON.parse(find("event-data").value), source: "demo page"};
    await call("POST", urls.eventsUrl, body);
  });
}

// State

// The revision the form shows, as an ETag; null when it was not loaded. Saving then overwrites.
let loadedEtag = null;

const stateUrl = () => urls.stateUrl + encodeURIComponent(find("state-key").value);

function showRevision(etag) {
  loadedEtag = etag;
  find("state-revision").textContent = etag ? `revision ${etag.replaceAll('"', "")}` : "";
}

async function listState() {
  const {data} = await call("GET", `${urls.stateUrl}?limit=20`);
  const rows = data.entries.map((entry) => {
    const row = document.createElement("tr");
    const changed = entry.update_time ? new Date(entry.update_time).toLocaleTimeString() : "";
    for (const textContent of [entry.key, entry.revision, changed]) row.append(Object.assign(document.createElement("td"), {textContent}));
    row.onclick = () => { find("state-key").value = entry.key; loadState(); };
    return row;
  });
  find("state-keys").replaceChildren(...rows);
  find("state-empty").hidden = rows.length > 0;
}

const reportState = (action) => report(find("state-problem"), async () => { await action(); await listState(); });

const loadState = () => reportState(async () => {
  const {data, etag} = await call("GET", stateUrl());
  find("state-value").value = JSON.stringify(data.value, null, 2);
  showRevision(etag);
});

const saveState = (event) => {
  event.preventDefault();
  return reportState(async () => {
    const condition = loadedEtag ? {"If-Match": loadedEtag} : {};
    const {etag} = await call("PUT", stateUrl(), {value: JSON.parse(find("state-value").value)}, condition);
    showRevision(etag);
  });
};

const deleteState = () => reportState(async () => {
  await call("DELETE", stateUrl());
  showRevision(null);
});

find("task-choice").onchange = showChoice;
find("task-form").onsubmit = runTask;
find("event-form").onsubmit = publish;
find("state-key").oninput = () => showRevision(null);
find("state-form").onsubmit = saveState;
find("state-load").onclick = loadState;
find("state-delete").onclick = deleteState;

watchEvents();
loadChoices().catch((error) => { find("task-output").textContent = error.message; });
reportState(async () => {});
