"""Send a trace over a caller, the runtime and a worker to a real trace server, MLflow, and read it back.

MLflow is installed into an environment of its own, under bench/.peers: some 850 MB.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings
from django_agent_runtime.conf import load
from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.runtime.interfaces import AgentRuntime, RunContext, RunResult
from django_agent_runtime.runtime.llm.offline import OfflineClient
from django_agent_runtime.runtime.tools import Tool
from django_agent_runtime.runtime.worker.worker import Worker
from django_agent_runtime.runtime_conf import load as load_settings
from django_agent_runtime.testing.process import GoRuntimeProcess, free_ports
from django_agent_runtime.tracing import configure, flush
from django_agent_runtime.types import RunTarget

if TYPE_CHECKING:
    from collections.abc import Iterator

MLFLOW = "mlflow==3.17.2"
EXPERIMENT = "0"
PATIENCE_SECONDS = 300.0
ENVIRONMENT = Path(__file__).resolve().parents[1] / "bench" / ".peers" / "mlflow"

# Each span's parent, by their names, and what MLflow makes of its kind.
EXPECTED = {
    "GET /research": (None, "UNKNOWN"),
    "agentruntime.v1.AgentService/CreateRun": ("GET /research", "UNKNOWN"),
    "run agent.run": ("agentruntime.v1.AgentService/CreateRun", "UNKNOWN"),
    "invoke_agent researcher": ("run agent.run", "AGENT"),
    "step look up": ("invoke_agent researcher", "UNKNOWN"),
    "chat offline": ("step look up", "CHAT_MODEL"),
    "execute_tool search": ("step look up", "TOOL"),
}


class Researcher(AgentRuntime):
    """Does one thing of each kind."""

    key = "researcher"

    async def run(self, ctx: RunContext) -> RunResult:
        """Ask a model, and have a tool search, in one step."""
        return RunResult(final_output={"found": await ctx.step("look up", self._look_up)})

    async def _look_up(self) -> Any:
        await OfflineClient().generate([{"role": "user", "content": "Where is it?"}])
        return await Tool("search", handler=lambda: {"found": "here", "token": "hidden"}).execute({}, call_id="call-1")


def main() -> int:
    """Check it; 0 when MLflow shows what was sent."""
    django_settings.configure()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(_serve_mlflow(folder))
        where = {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{url}/v1/traces",
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS": f"x-mlflow-experiment-id={EXPERIMENT}",
        }
        os.environ |= where
        runtime = stack.enter_context(GoRuntimeProcess(folder, environment=where))
        trace_id = _make_trace(runtime)
        # It sends what is left.
        runtime.stop()
        flush(PATIENCE_SECONDS)
        return _check(_read_back(url, trace_id))


@contextmanager
def _serve_mlflow(folder: Path) -> Iterator[str]:
    _say(f"installing {MLFLOW} into {ENVIRONMENT}")
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        subprocess.run(["uv", "venv", "--quiet", str(ENVIRONMENT)], check=True)
    subprocess.run(["uv", "pip", "install", "--quiet", "--python", str(python), MLFLOW], check=True)
    port = free_ports(1)[0]
    command = [
        str(ENVIRONMENT / "bin" / "mlflow"),
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    store = [
        "--backend-store-uri",
        f"sqlite:///{folder}/traces.db",
        "--default-artifact-root",
        str(folder / "artifacts"),
    ]
    path = os.pathsep.join([str(ENVIRONMENT / "bin"), os.environ["PATH"]])
    with (folder / "mlflow.log").open("wb") as log:
        server = subprocess.Popen(
            [*command, *store],
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PATH": path},
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(lambda: _get(f"{url}/health"), "MLflow does not answer")
        yield url
    finally:
        # Its workers are processes of their own.
        os.killpg(server.pid, 15)
        server.wait(30)


def _make_trace(runtime: GoRuntimeProcess) -> str:
    """The id of the trace of a run that a request of a site asks for."""
    assert configure("site")
    from opentelemetry import trace  # noqa: PLC0415 - `configure` chooses what it does

    settings = load_settings({})
    worker = Worker(load(runtime.settings), {Researcher.key: Researcher()}, settings=settings)
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    with GoRuntimeIntegration(**runtime.settings) as client:
        with trace.get_tracer("site").start_as_current_span("GET /research"):
            created = client.create_run("researcher", target=RunTarget.WORKER, metadata={"trace": True})
        _wait(lambda: client.get_run(created.run_id).state.ended, "the run does not end")
        assert client.get_run(created.run_id).output is not None
    worker.stop(0)
    thread.join()
    return created.trace_id


def _read_back(url: str, trace_id: str) -> list[dict[str, Any]]:
    """The spans that MLflow has of a trace, once there are enough."""
    location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": EXPERIMENT}}
    spans: list[dict[str, Any]] = []

    def is_complete() -> bool:
        found = _post(f"{url}/api/3.0/mlflow/traces/search", {"locations": [location]})
        names = [each["trace_id"] for each in found.get("traces", []) if trace_id in each["trace_id"]]
        if not names:
            return False
        content = json.loads(_get(f"{url}/ajax-api/2.0/mlflow/get-trace-artifact?request_id={names[0]}"))
        spans[:] = content["spans"]
        return len(spans) >= len(EXPECTED)

    _wait(is_complete, f"MLflow has not all spans of {trace_id}")
    return spans


def _check(spans: list[dict[str, Any]]) -> int:
    by_id = {span["span_id"]: span["name"] for span in spans}
    attributes = {span["name"]: span["attributes"] for span in spans}
    shown = {
        span["name"]: (
            by_id.get(span["parent_span_id"]),
            json.loads(attributes[span["name"]].get("mlflow.spanType", '"UNKNOWN"')),
        )
        for span in spans
    }
    for name, (parent, kind) in shown.items():
        _say(f"{kind:<12} {name} < {parent}")
    wrong = [
        f"{name}: {shown.get(name)}, not {wanted}" for name, wanted in EXPECTED.items() if shown.get(name) != wanted
    ]
    if "hidden" in json.dumps(spans):
        wrong.append("what was to be masked is there")
    if "Where is it?" not in json.dumps(attributes["chat offline"]):
        wrong.append("what the model was asked is not there")
    for sentence in wrong:
        _say(f"WRONG {sentence}")
    _say(f"{len(spans)} spans of one trace read back, {len(wrong)} mistakes")
    return 1 if wrong else 0


def _wait(condition: Any, otherwise: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if condition():
                return
        except OSError:
            # Nobody is there yet.
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(0.2)


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - of this process's own making
        body: bytes = response.read()
        return body


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310 - as above
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - as above
        answer: dict[str, Any] = json.load(response)
        return answer


def _say(text: str) -> None:
    print(f"traces: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
