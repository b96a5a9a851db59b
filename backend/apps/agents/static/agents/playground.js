// Follows the run that the page shows, and sends its forms without leaving the page. Without it, the page shows the run
// as it was when the page was asked for, and every form works all the same.

const ENDS = ["run.succeeded", "run.failed", "run.cancelled", "run.timed_out"];
const STATUS_LOOK_MS = 2000;
const LONG_TEXT = 400;
const find = (id) => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// What went wrong, as the API words it: as problem details.
async function call(method, url, body, form) {
  const response = await fetch(url, {
    method,
    headers: {"Content-Type": "application/json", "X-CSRFToken": form?.elements.csrfmiddlewaretoken.value ?? ""},
    body: body && JSON.stringify(body),
  });
  const data = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(data.detail ?? `The site answered ${response.status}.`);
  return data;
}

function say(text) {
  find("notice").textContent = text;
  find("notice").hidden = !text;
}

// A form that leads to another page is sent once, however often it is asked to.
function sendOnce(form) {
  let isSent = false;
  form.addEventListener("submit", (event) => {
    if (isSent) event.preventDefault();
    isSent = true;
  });
  // A page that comes back from the browser's memory may be sent again.
  window.addEventListener("pageshow", () => { isSent = false; });
}

// The message

function prepareComposer(form) {
  const text = form.elements.message;
  form.querySelector(".if-scripted").hidden = false;
  text.focus({preventScroll: Boolean(find("run"))});
  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  sendOnce(form);
}

// The run

// The text of a message, whose content is a text or a list of parts.
function readText(content) {
  if (!Array.isArray(content)) return typeof content === "string" ? content : "";
  return content.map((part) => (typeof part?.text === "string" ? part.text : "")).join("");
}

class RunView {
  constructor(section) {
    this.section = section;
    this.sequence = 0;
    this.isLooking = false;
    this.message = null;
    this.deltas = null;
    this.status = section.dataset.status;
  }

  follow() {
    // Named events would each need a listener of their own. The browser resumes behind the last id that it saw.
    this.source = new EventSource(this.section.dataset.stream);
    this.source.onmessage = ({data}) => this.take(JSON.parse(data));
    this.source.onerror = () => {
      if (this.source.readyState === EventSource.CLOSED) say("The stream has ended. Reload the page to go on.");
    };
    find("events").setAttribute("aria-busy", "true");
    this.lookWhileQueued();
    this.lookForSubRuns();
  }

  take(event) {
    if (event.seq === undefined) {
      say(event.type === "run.waiting_for_runtime"
        ? "The runtime cannot be reached. The run is kept, and goes on when it is back."
        : event.problem?.detail ?? event.type);
      return;
    }
    if (event.seq <= this.sequence) return;
    // The stream begins with the run, and takes the place of what the server wrote.
    if (this.sequence === 0) this.clear();
    this.sequence = event.seq;
    say("");
    this.log(event);
    this.show(event);
  }

  clear() {
    find("events").replaceChildren();
    find("answer").replaceChildren();
    this.message = this.deltas = null;
  }

  show(event) {
    const payload = event.payload;
    switch (event.type) {
      case "assistant.delta":
        this.setStatus("running");
        this.message ??= this.addMessage(true);
        this.message.append(payload.content ?? "");
        return;
      case "assistant.message":
        this.setStatus("running");
        this.finishMessage(readText(payload.content));
        return;
      case "run.interrupted":
        this.ask(payload);
        return;
      case "run.retrying":
        // What the attempt that failed has begun to say is said anew.
        this.message?.parentElement.remove();
        this.finishMessage();
        this.setStatus("queued");
        this.lookWhileQueued();
        return;
      case "error":
        find("answer").append(make("p", {className: "problem", textContent: payload.error ?? "An error."}));
        return;
    }
    if (ENDS.includes(event.type)) this.end(event);
    else if (event.type === "run.queued" || event.type === "run.waiting") this.setStatus(event.type.slice(4));
    else this.setStatus("running");
  }

  // A screen reader is told of a message once it is whole: the region says that it is busy until then.
  addMessage(isComing) {
    const text = make("p");
    const message = make("div", {className: isComing ? "said agent coming" : "said agent"},
      make("span", {className: "who", textContent: this.section.dataset.agent}), text);
    find("answer").setAttribute("aria-busy", String(isComing));
    find("answer").append(message);
    return text;
  }

  // A message that only calls tools has no text: what was streamed before it stands.
  finishMessage(text = "") {
    if (text) {
      this.message ??= this.addMessage(false);
      this.message.textContent = text;
    }
    this.message?.parentElement.classList.remove("coming");
    find("answer").setAttribute("aria-busy", "false");
    this.message = null;
  }

  ask({interrupt_id, payload}) {
    const form = find("question");
    const choices = Array.isArray(payload?.choices) ? payload.choices : [];
    const text = payload?.question ?? payload;
    find("question-text").textContent = typeof text === "string" ? text : JSON.stringify(payload);
    find("question-choices").replaceChildren(...choices.map((choice) => make("button", {
      className: "button", name: "choice", value: JSON.stringify(choice),
      textContent: typeof choice === "string" ? choice : JSON.stringify(choice),
    })));
    find("question-free").hidden = choices.length > 0;
    this.setStatus("waiting", interrupt_id);
    // Nobody who writes is interrupted; and a question that was answered long ago is followed by its answer at once.
    setTimeout(() => {
      const active = document.activeElement;
      const isIdle = active === document.body || (active.id === "message" && !active.value);
      if (this.status === "waiting" && isIdle) find("question-text").focus();
    }, 100);
  }

  end({type, payload}) {
    this.finishMessage();
    this.source.close();
    if (payload.error) find("answer").append(make("p", {className: "problem", textContent: payload.error}));
    const output = payload.output?.final_output;
    if (output && !find("answer").children.length) {
      const text = this.addMessage(false);
      text.textContent = typeof output.response === "string" ? output.response : JSON.stringify(output, null, 2);
    }
    find("events").setAttribute("aria-busy", "false");
    this.setStatus(type.slice(4));
  }

  // Only a run that waits for an answer has the id of a question: one that waits for sub-runs asks nothing.
  setStatus(status, interruptId = "") {
    const question = find("question");
    const asked = question.elements.interrupt_id;
    if (status === this.status && interruptId === asked.value) return;
    const active = document.activeElement;
    this.status = status;
    const hasEnded = ENDS.includes(`run.${status}`);
    find("status").textContent = status.replace("_", " ");
    find("status").className = `badge ${status}`;
    asked.value = interruptId;
    question.hidden = !interruptId;
    find("cancel").hidden = hasEnded;
    // A sub-run is retried with the run that created it.
    find("retry").hidden = !hasEnded || status === "succeeded" || "never" in find("retry").dataset;
    // A control that goes away must not take the focus with it.
    if (active?.closest("[hidden]")) (hasEnded ? find("message") ?? find("status") : find("status")).focus();
  }

  log(event) {
    const list = find("events");
    const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    if (event.type === "assistant.delta" && this.deltas) {
      this.deltas.count += 1;
      this.deltas.name.textContent = `assistant.delta × ${this.deltas.count}`;
      this.deltas.sequence.textContent = event.seq;
    } else {
      const sequence = make("span", {className: "sequence", textContent: event.seq});
      const name = make("b", {textContent: event.type});
      const text = JSON.stringify(event.payload);
      const time = make("time", {dateTime: event.ts, textContent: event.ts.slice(11, 19)});
      const row = make("li", {}, sequence, name, time);
      if (event.type !== "assistant.delta") {
        row.append(make("code", {textContent: text.length > LONG_TEXT ? `${text.slice(0, LONG_TEXT)}…` : text}));
      }
      list.append(row);
      this.deltas = event.type === "assistant.delta" ? {count: 1, name, sequence} : null;
    }
    if (isAtEnd) list.scrollTop = list.scrollHeight;
  }

  // That a run has begun is told by an event that most readers do not get.
  async lookWhileQueued() {
    if (this.isLooking) return;
    this.isLooking = true;
    while (this.status === "queued") {
      await new Promise((resolve) => setTimeout(resolve, STATUS_LOOK_MS));
      if (this.status !== "queued") break;
      const run = await call("GET", this.section.dataset.api).catch(() => null);
      if (this.status === "queued" && run?.status === "running") this.setStatus("running");
    }
    this.isLooking = false;
  }

  // The events of sub-runs are in streams of their own.
  async lookForSubRuns() {
    for (let hasEnded = false; !hasEnded;) {
      hasEnded = ENDS.includes(`run.${this.status}`);
      const found = await call("GET", this.section.dataset.subRuns).catch(() => null);
      if (found) this.showSubRuns(found.results.reverse());
      if (!hasEnded) await new Promise((resolve) => setTimeout(resolve, STATUS_LOOK_MS));
    }
  }

  showSubRuns(runs) {
    const {id, page} = this.section.dataset;
    const list = find("sub-runs").querySelector("ul");
    const lines = runs.map((run) => make("li", {},
      make("a", {href: page.replace(id, run.id), textContent: run.agent_key}), " ",
      make("span", {className: `badge ${run.status}`, textContent: run.status.replace("_", " ")}),
      run.interrupt ? " asks something" : ""));
    // What has not changed keeps the focus.
    if (lines.map((line) => line.outerHTML).join() === [...list.children].map((line) => line.outerHTML).join()) return;
    list.replaceChildren(...lines);
    find("sub-runs").hidden = !runs.length;
  }
}

function prepareForm(form, makeBody) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    // Buttons that were disabled would lose the focus.
    if (form.getAttribute("aria-busy") === "true") return;
    form.setAttribute("aria-busy", "true");
    try {
      await call("POST", form.dataset.api, makeBody(event.submitter), form);
      say("");
    } catch (error) {
      say(error.message);
    }
    form.removeAttribute("aria-busy");
  });
}

function parseAnswer(text) {
  try { return JSON.parse(text); } catch { return text; }
}

const section = find("run");
if (find("composer")) prepareComposer(find("composer"));
if (section) {
  const question = find("question");
  sendOnce(find("retry"));
  prepareForm(find("cancel"), () => ({}));
  prepareForm(question, (button) => ({
    interrupt_id: question.elements.interrupt_id.value,
    value: parseAnswer(button?.name === "choice" ? button.value : question.elements.answer.value),
  }));
  new RunView(section).follow();
}
