"""The playground in a real Chromium: a served site, the real runtime and a worker."""

from __future__ import annotations

import re
import shutil
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from backend.apps.agents.tests.servers import PATIENCE_SECONDS, Accounts, Site, serve, wait_until

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, BrowserContext, Page, Request, Route

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

# Every text that the answer has had, as it grew.
WATCH_ANSWER = """
window.texts = [];
document.addEventListener("DOMContentLoaded", () => {
  const answer = document.getElementById("answer");
  if (!answer) return;
  new MutationObserver(() => window.texts.push(answer.textContent)).observe(
    answer, {childList: true, subtree: true, characterData: true});
});
"""
# What is wrong with a page, as far as a machine can tell.
FIND_FAULTS = """() => {
  const faults = [];
  const name = (element) => element.outerHTML.slice(0, 120);
  const check = (selector, isFine, what) => document.querySelectorAll(selector).forEach((element) => {
    if (!isFine(element)) faults.push(`${what}: ${name(element)}`);
  });
  if (!document.documentElement.lang) faults.push("no lang");
  if (!document.title) faults.push("no title");
  for (const tag of ["h1", "main"]) {
    if (document.querySelectorAll(tag).length !== 1) faults.push(`not one ${tag}`);
  }
  check("input:not([type=hidden]), select, textarea",
    (field) => field.labels.length || field.ariaLabel || field.getAttribute("aria-labelledby"), "no label");
  check("button, a, summary, legend, h1, h2, h3", (element) => element.hidden || element.textContent.trim(), "no text");
  check("img", (image) => image.hasAttribute("alt"), "no alt");
  check("nav, #run, #question", (part) => part.ariaLabel || part.getAttribute("aria-labelledby"), "no name");
  check("[aria-labelledby], [aria-describedby]", (element) =>
    ["aria-labelledby", "aria-describedby"].every((key) => (element.getAttribute(key) ?? "").split(" ").every(
      (id) => !id || document.getElementById(id))), "points nowhere");
  check("[id]", (element) => document.querySelectorAll(`[id="${element.id}"]`).length === 1, "id twice");
  check("script", (script) => script.src && !script.textContent.trim(), "inline script");
  check("*", (element) => [...element.attributes].every(({name}) => name !== "style" && !name.startsWith("on")),
    "inline style or handler");
  const read = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const straight = (value) => value <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4;
    const [r, g, b] = read(color).slice(0, 3).map((value) => straight(value / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if ((read(color)[3] ?? 1) > 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  check("body *", (element) => {
    const hasText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!hasText || !element.checkVisibility()) return true;
    const [a, b] = [light(getComputedStyle(element).color), light(ground(element))].sort((x, y) => y - x);
    return (a + .05) / (b + .05) >= 4.5;
  }, "contrast below 4.5");
  if (document.documentElement.scrollWidth > document.documentElement.clientWidth) faults.push("scrolls sideways");
  return faults;
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the site's data are."""
    return tmp_path_factory.mktemp("playground")


@pytest.fixture
def enough(folder: Path) -> Iterator[Path]:
    """A file that the test makes when `endless-agent` shall come to its end."""
    path = folder / "enough"
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def site(accounts: Accounts, folder: Path) -> Iterator[Site]:
    """The site with a worker, which projects too."""
    variables = {
        "DJANGO_SETTINGS_MODULE": "backend.apps.agents.tests.site_settings",
        "ENOUGH": str(folder / "enough"),
    }
    with serve("uvicorn", folder, accounts, **variables) as site:
        site.runtime.start()
        site.start("runagent --noreload --grace=1")
        yield site


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # For all tests of the module and no longer: while it runs, this thread seems to have an event loop.
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Visit:
    """A user's pages, whose scripts must not complain."""

    def __init__(self, context: BrowserContext, site: Site) -> None:
        self.context = context
        self.base = f"http://127.0.0.1:{site.port}"
        self.complaints: list[str] = []
        context.set_default_timeout(PATIENCE_SECONDS * 1000)
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        context.on("console", lambda line: self.complaints.append(line.text) if line.type == "error" else None)
        self.page = context.new_page()

    def sign_in(self, name: str = "ada") -> Page:
        self.page.goto(f"{self.base}/")
        self.page.get_by_label("User name").fill(name)
        self.page.get_by_label("Password").fill(name)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(f"{self.base}/")
        return self.page

    def send(self, text: str, agent: str = "travel-agent") -> Page:
        """Begin a conversation; the page of its run."""
        self.page.goto(f"{self.base}/")
        self.page.get_by_role("radio", name=agent).check()
        self.page.get_by_label("Message").fill(text)
        self.page.get_by_role("button", name="Send").click()
        self.page.wait_for_url("**/runs/*/")
        return self.page


@contextmanager
def visiting(browser: Browser, site: Site, **options: Any) -> Iterator[Visit]:
    context = browser.new_context(**options)
    try:
        visit = Visit(context, site)
        yield visit
        assert visit.complaints == []
    finally:
        context.close()


@pytest.fixture
def visit(browser: Browser, site: Site) -> Iterator[Visit]:
    """Ada, signed in."""
    with visiting(browser, site) as visit:
        visit.sign_in()
        yield visit


def wait_for_status(page: Page, status: str) -> None:
    page.locator(f"#status.{status}").wait_for()
    if status in ("succeeded", "cancelled"):
        wait_for_the_end(page)


def wait_for_the_end(page: Page) -> None:
    """Until the page has seen the end of the stream, which takes the place of what the server wrote."""
    page.locator("#events[aria-busy=false]").wait_for(state="attached")


def answers(page: Page) -> list[str]:
    texts: list[str] = page.locator("#answer .said p").all_inner_texts()
    return texts


def sequences(page: Page) -> list[int]:
    return [int(text) for text in page.locator("#events .sequence").all_text_contents()]


def test_asks_for_a_sign_in_first(browser: Browser, site: Site) -> None:
    with visiting(browser, site) as visit:
        visit.page.goto(f"{visit.base}/")
        assert visit.page.url == f"{visit.base}/login/?next=/"
        assert visit.sign_in().get_by_role("heading", level=1).inner_text() == "Playground"


def test_tokens_arrive_one_after_the_other(visit: Visit, enough: Path) -> None:
    visit.context.add_init_script(WATCH_ANSWER)
    page = visit.send("Tell me a story", "endless-agent")
    assert page.get_by_text("offline model").is_visible()

    def has_grown() -> bool:
        texts = page.evaluate("window.texts")
        grown = [text for before, text in pairwise(texts) if text != before and text.startswith(before)]
        return len(grown) >= 5

    wait_until(has_grown)
    enough.touch()
    wait_for_status(page, "succeeded")
    [answer] = answers(page)
    assert answer.endswith("upon end.")
    assert page.locator("#answer").get_attribute("aria-busy") == "false"
    assert not page.get_by_role("button", name="Cancel").is_visible()


def test_tools_show_with_debug_events_only(visit: Visit) -> None:
    page = visit.send("Please get weather")
    wait_for_status(page, "succeeded")
    assert "Rome: sunny" in answers(page)[0]
    page.locator("summary", has_text="Events").click()
    assert page.get_by_text("tool.call", exact=True).count() == 0
    page.get_by_role("link", name="With debug events").click()
    page.get_by_text("tool.result", exact=True).wait_for()
    assert page.get_by_text("run.started", exact=True).count() == 0
    page.get_by_role("link", name="Everything").click()
    page.get_by_text("run.started", exact=True).wait_for()


def test_conversation_goes_on_and_is_listed(visit: Visit) -> None:
    page = visit.send("The first message of all", "chat-agent")
    wait_for_status(page, "succeeded")
    first = page.url
    page.get_by_label("Message").fill("A second one")
    page.get_by_label("Message").press("Enter")
    page.wait_for_url(lambda url: url != first)
    wait_for_status(page, "succeeded")
    said = page.locator(".said.you p").all_inner_texts()
    assert said == ["The first message of all", "A second one"]
    assert "A second one" in answers(page)[0]
    assert "offline stand-in" in answers(page)[0]
    page.goto(f"{visit.base}/")
    page.get_by_role("navigation", name="Your conversations").get_by_role("link", name="The first message").click()
    assert page.locator(".said.you p").all_inner_texts() == said


def test_cancel_in_the_middle_and_try_again(visit: Visit, enough: Path) -> None:
    page = visit.send("Tell me a story", "endless-agent")
    page.locator(".coming").wait_for()
    page.get_by_role("button", name="Cancel").click()
    wait_for_status(page, "cancelled")
    assert page.locator(".coming").count() == 0
    assert "end." not in answers(page)[0]
    enough.touch()
    cancelled = page.url
    page.get_by_role("button", name="Try again").click()
    page.wait_for_url(lambda url: url != cancelled)
    wait_for_status(page, "succeeded")
    assert "end." in answers(page)[0]


def test_double_click_tries_again_once(visit: Visit, site: Site) -> None:
    run_id = site.create(delay_seconds=600)
    assert site.call("POST", f"runs/{run_id}/cancel/")[0] == 200
    page = visit.page
    page.goto(f"{visit.base}/runs/{run_id}/")
    button = page.get_by_role("button", name="Try again")
    sent: list[Route] = []

    def hold(route: Route) -> None:
        sent.append(route)

    page.route("**/retry/", hold)
    button.hover()
    with page.expect_request("**/retry/"):
        page.mouse.down()
        page.mouse.up()
    page.mouse.down()
    page.mouse.up()
    sent[0].continue_()
    page.wait_for_url(lambda url: run_id not in url)
    wait_for_status(page, "succeeded")
    assert len(sent) == 1


def test_quiet_attempt_after_others_that_failed_is_running(visit: Visit, site: Site) -> None:
    run_id = site.create(agent_key="flaky-agent")

    def is_quiet() -> bool:
        run = site.call("GET", f"runs/{run_id}/")[1]
        return (run["status"], run["attempt"]) == ("running", 3)

    wait_until(is_quiet)
    page = visit.page
    address = f"{visit.base}/api/agents/runs/{run_id}/"
    looks: list[Request] = []
    page.on("request", lambda request: looks.append(request) if request.url == address else None)
    with page.expect_response(address):
        page.goto(f"{visit.base}/runs/{run_id}/")
    wait_for_status(page, "running")
    # It was queued more than once, and is looked at by one loop.
    assert len(looks) == 1
    page.get_by_role("button", name="Cancel").click()
    wait_for_status(page, "cancelled")


def test_message_without_a_text_leaves_what_was_streamed_and_parts_are_joined(visit: Visit) -> None:
    page = visit.send("What is the weather?", "parts-agent")
    wait_for_the_end(page)
    assert answers(page) == ["Let me look.", "It is sunny."]


def test_question_is_answered_and_the_run_goes_on(visit: Visit) -> None:
    page = visit.send("Refund order 7", "refund-agent")
    page.get_by_role("heading", name="Refund 175 € for order 7?").wait_for()
    wait_for_status(page, "waiting")
    page.get_by_role("button", name="Approve").click()
    wait_for_status(page, "succeeded")
    assert not page.get_by_role("button", name="Approve").is_visible()
    found, refunded = answers(page)
    assert found.startswith("I found order 7.")
    assert refunded.startswith("Refunded 175 €.")


def test_question_is_still_there_after_a_reload_and_can_be_declined(visit: Visit) -> None:
    page = visit.send("Refund order 3", "refund-agent")
    wait_for_status(page, "waiting")
    page.reload()
    page.get_by_role("button", name="Decline").click()
    wait_for_status(page, "succeeded")
    assert answers(page)[1] == "Nothing was refunded."


def test_answered_question_does_not_come_back_while_a_sub_run_is_waited_for(visit: Visit, site: Site) -> None:
    run_id = site.create(agent_key="delegating-agent")
    page = visit.page
    page.goto(f"{visit.base}/runs/{run_id}/?events=all")
    page.get_by_label("Answer, a text or JSON").fill("Yes")
    page.get_by_role("button", name="Answer").click()
    page.get_by_text("run.waiting", exact=True).wait_for()
    wait_for_status(page, "waiting")
    assert not page.locator("#question").is_visible()
    page.get_by_role("button", name="Cancel").click()
    wait_for_status(page, "cancelled")


def test_question_of_a_sub_run_is_answered_on_its_own_page(visit: Visit) -> None:
    page = visit.send("Refund order 7, please", "front-desk-agent")
    of_parent = page.url
    page.get_by_text("asks something").wait_for()
    assert not page.locator("#question").is_visible()
    assert page.evaluate(FIND_FAULTS) == []
    page.get_by_role("link", name="refund-agent").click()
    page.get_by_role("heading", name="Refund 175 € for order 7?").wait_for()
    assert page.evaluate(FIND_FAULTS) == []
    page.get_by_role("button", name="Approve").click()
    wait_for_status(page, "succeeded")
    page.get_by_role("link", name="another run").click()
    assert page.url == of_parent
    wait_for_status(page, "succeeded")
    page.locator("#sub-runs .badge.succeeded").wait_for()


def test_sub_runs_are_in_the_admin(browser: Browser, site: Site) -> None:
    run_id = site.create(agent_key="front-desk-agent")
    [sub_run] = wait_until(lambda: site.call("GET", f"runs/?parent_run={run_id}")[1]["results"])
    assert sub_run["agent_key"] == "refund-agent"
    with visiting(browser, site) as visit:
        page = visit.sign_in("root")
        # The admin names no icon, so that the browser asks for one that is not there.
        page.route("**/favicon.ico", lambda route: route.fulfill(status=204))
        page.goto(f"{visit.base}/admin/django_agent_runtime/agentrun/{run_id}/change/")
        page.get_by_role("link", name="sub-runs").click()
        page.get_by_role("link", name=sub_run["id"]).click()
        page.locator(".field-parent_run_link").get_by_role("link", name=run_id).click()
    site.call("POST", f"runs/{run_id}/cancel/")


def test_reload_in_the_middle_goes_on_without_a_repeat(visit: Visit, enough: Path) -> None:
    page = visit.send("Tell me a story", "endless-agent")
    page.locator(".coming").wait_for()
    page.goto(f"{page.url}?events=all")
    page.locator(".coming").wait_for()
    page.reload()
    page.locator(".coming").wait_for()
    enough.touch()
    wait_for_the_end(page)
    [answer] = answers(page)
    assert answer.count("Once") == 1
    assert answer.endswith("upon end.")
    seen = sequences(page)
    assert seen == sorted(set(seen))
    page.reload()
    wait_for_the_end(page)
    assert (answers(page), sequences(page)) == ([answer], seen)


def test_lost_connection_resumes_behind_the_last_event(visit: Visit) -> None:
    page = visit.send("Please get weather")
    wait_for_the_end(page)
    page.goto(f"{page.url}?events=all")
    wait_for_the_end(page)
    whole = sequences(page), answers(page)
    stream = f"{visit.base}{page.locator('#run').get_attribute('data-stream')}"

    def read_events(text: str) -> list[str]:
        return [block for block in text.split("\n\n") if block.startswith("id: ")]

    events = read_events(page.request.get(stream, headers={"Accept": "text/event-stream"}).text())
    half = events[: len(events) // 2]
    asked: list[Request] = []

    def break_off(route: Route) -> None:
        asked.append(route.request)
        if len(asked) == 1:
            body = "retry: 10\n\n" + "".join(f"{block}\n\n" for block in half)
            route.fulfill(status=200, content_type="text/event-stream", body=body)
        else:
            route.continue_()

    page.route(re.compile(r"/events/\?"), break_off)
    page.reload()
    wait_for_the_end(page)
    assert (sequences(page), answers(page)) == whole
    # Of the second request the server wrote only what the first had not brought.
    [_, resumed] = asked
    answer = resumed.response()
    assert answer is not None
    assert read_events(answer.text()) == events[len(half) :]


def test_two_tabs_show_the_same_run(visit: Visit) -> None:
    page = visit.send("Refund order 5", "refund-agent")
    other = visit.context.new_page()
    other.goto(page.url)
    for tab in (page, other):
        wait_for_status(tab, "waiting")
    other.get_by_role("button", name="Approve").click()
    for tab in (page, other):
        wait_for_status(tab, "succeeded")
        assert not tab.get_by_role("button", name="Approve").is_visible()
    assert answers(page) == answers(other)


def test_keyboard_is_enough(visit: Visit) -> None:
    page = visit.page
    keys = page.keyboard
    page.locator("#message:focus").wait_for()
    # Back over the agents of the runtime to the group of radio buttons, whose checked one has the focus.
    keys.press("Shift+Tab")
    keys.press("Shift+Tab")
    keys.press("ArrowUp")
    assert page.get_by_role("radio", name="refund-agent").is_checked()
    keys.press("Tab")
    keys.press("Tab")
    keys.type("Refund order 2")
    keys.press("Enter")
    page.wait_for_url("**/runs/*/")
    page.locator("#question-text:focus").wait_for()
    keys.press("Tab")
    assert page.get_by_role("button", name="Approve").evaluate("button => button.matches(':focus-visible')")
    keys.press("Enter")
    wait_for_status(page, "succeeded")
    # The button is gone, and the focus is not.
    assert page.evaluate("document.activeElement.id") in {"status", "message"}
    page.goto(f"{visit.base}/about/")
    keys.press("Tab")
    keys.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_question_does_not_take_the_focus_of_who_writes(visit: Visit) -> None:
    page = visit.page
    page.route(re.compile(r"/events/\?"), lambda _route: None)
    visit.send("Refund order 9", "refund-agent")
    page.get_by_label("Message").fill("And then")
    page.unroute(re.compile(r"/events/\?"))
    page.evaluate("() => import('/static/agents/playground.js?again')")
    page.get_by_role("button", name="Approve").wait_for()
    page.wait_for_function("new Promise((resolve) => setTimeout(() => resolve(true), 300))")
    assert page.evaluate("document.activeElement.id") == "message"


def test_agent_of_the_runtime(visit: Visit) -> None:
    page = visit.page
    page.locator("summary", has_text="in the runtime itself").click()
    page.get_by_role("radio", name="app_builder_agent: design_application").check()
    page.get_by_label("Message").fill("A shop for second-hand books")
    page.get_by_role("button", name="Send").click()
    page.wait_for_url("**/runs/*/")
    wait_for_status(page, "succeeded")
    assert "docs/architecture.md" in answers(page)[0]


def test_conversation_with_an_agent_of_the_runtime(visit: Visit) -> None:
    page = visit.page
    page.locator("summary", has_text="in the runtime itself").click()
    page.get_by_role("radio", name="frontend_agent").first.check()
    page.get_by_label("Message").fill("What is a good button?")
    page.get_by_role("button", name="Send").click()
    page.wait_for_url("**/runs/*/")
    wait_for_status(page, "succeeded")
    first = page.url
    assert "What is a good button?" in answers(page)[0]
    page.get_by_label("Message").fill("And a bad one?")
    page.get_by_role("button", name="Send").click()
    page.wait_for_url(lambda url: url != first)
    wait_for_status(page, "succeeded")
    assert page.locator(".said.you p").all_inner_texts() == ["What is a good button?", "And a bad one?"]
    assert "And a bad one?" in answers(page)[0]


def test_stream_says_that_the_runtime_is_away_and_goes_on(visit: Visit, site: Site) -> None:
    page = visit.page
    page.get_by_role("radio", name="chat-agent").check()
    page.get_by_label("Message").fill("Are you there?")
    site.runtime.stop()
    try:
        page.get_by_role("button", name="Send").click()
        page.wait_for_url("**/runs/*/")
        page.get_by_text("The runtime cannot be reached.").wait_for()
    finally:
        site.runtime.start()
    wait_for_status(page, "succeeded")
    assert "Are you there?" in answers(page)[0]
    assert not page.locator("#notice").is_visible()


def test_everything_works_without_scripts(browser: Browser, site: Site, enough: Path) -> None:
    with visiting(browser, site, java_script_enabled=False) as visit:
        visit.sign_in()
        page = visit.send("Refund order 4", "refund-agent")

        def read_until(selector: str) -> None:
            def is_there() -> bool:
                found = page.locator(selector).count() > 0
                if not found:
                    page.reload()
                return found

            wait_until(is_there)

        read_until("#status.waiting")
        page.get_by_role("button", name="Approve").click()
        read_until("#status.succeeded")
        assert answers(page)[-1].startswith("Refunded 100 €.")
        read_until("#events li >> text=run.succeeded")
        page = visit.send("Tell me a story", "endless-agent")
        page.get_by_role("button", name="Cancel").click()
        read_until("#status.cancelled")
        enough.touch()
        cancelled = page.url
        page.get_by_role("button", name="Try again").click()
        page.wait_for_url(lambda url: url != cancelled)
        read_until("#status.succeeded")
        page.get_by_role("link", name="New conversation").click()
        page.get_by_role("button", name="Send").click()
        # The browser itself asks for the message, in a form that has no script.
        assert page.url == f"{visit.base}/"


@pytest.mark.parametrize("width", [375, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_have_no_faults_that_a_machine_finds(browser: Browser, site: Site, scheme: Any, width: int) -> None:
    look: dict[str, Any] = {"color_scheme": scheme, "reduced_motion": "reduce"}
    with visiting(browser, site, viewport={"width": width, "height": 800}, **look) as visit:
        page = visit.page
        page.goto(f"{visit.base}/login/")
        assert page.evaluate(FIND_FAULTS) == []
        visit.sign_in()
        page.locator("summary").click()
        assert page.evaluate(FIND_FAULTS) == []
        visit.send("Tell me a story", "endless-agent")
        page.locator(".coming").wait_for()
        still = "getComputedStyle(document.querySelector('.coming p'), '::after').animationName"
        assert page.evaluate(still) == "none"
        page.get_by_role("button", name="Cancel").click()
        wait_for_status(page, "cancelled")
        assert page.evaluate(FIND_FAULTS) == []
        visit.send("Refund order 6", "refund-agent")
        wait_for_status(page, "waiting")
        page.goto(f"{page.url}?events=all")
        page.get_by_text("step.completed", exact=True).wait_for()
        assert page.evaluate(FIND_FAULTS) == []
