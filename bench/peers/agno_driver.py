"""Drives agno's AgentOS with its durable queue on PostgreSQL: see `bench.peer` for what is said on stdin and stdout.

Two server processes, which are its workers as well; a run is submitted in the background, and asked for until it is
done.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from importlib.metadata import version
from typing import Any

import httpx

_PROCESSES = 2
_LOOK_SECONDS = 0.005
_START_SECONDS = 60.0
_SUBMITTERS = 16
_DONE = {"COMPLETED"}
_FAILED = {"ERROR", "FAILED", "CANCELLED"}


class Failed(Exception):
    """A run did not end as it should."""


async def _submit(client: httpx.AsyncClient, value: dict[str, Any]) -> tuple[str, str]:
    form = {"message": json.dumps(value), "stream": "false", "background": "true"}
    answer = await client.post("/agents/bench-echo/runs", data=form)
    answer.raise_for_status()
    run = answer.json()
    return run["run_id"], run["session_id"]


async def _wait(client: httpx.AsyncClient, run_id: str, session_id: str) -> None:
    while True:
        answer = await client.get(f"/agents/bench-echo/runs/{run_id}", params={"session_id": session_id})
        answer.raise_for_status()
        status = str(answer.json()["status"]).upper()
        if status in _DONE:
            return
        if status in _FAILED:
            raise Failed(answer.text)
        await asyncio.sleep(_LOOK_SECONDS)


async def _call(client: httpx.AsyncClient, value: dict[str, Any]) -> float:
    begin = time.perf_counter()
    await _wait(client, *await _submit(client, value))
    return time.perf_counter() - begin


async def _drain(client: httpx.AsyncClient, value: dict[str, Any], count: int) -> float:
    begin = time.perf_counter()
    room = asyncio.Semaphore(_SUBMITTERS)

    async def submit() -> tuple[str, str]:
        async with room:
            return await _submit(client, value)

    # One is asked for at a time: whoever asks for hundreds would be what is measured.
    for run in await asyncio.gather(*(submit() for _ in range(count))):
        await _wait(client, *run)
    return time.perf_counter() - begin


async def _start(client: httpx.AsyncClient) -> None:
    until = time.monotonic() + _START_SECONDS
    while True:
        try:
            await _call(client, {})
        except httpx.TransportError:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(_LOOK_SECONDS)
        else:
            return


async def _serve() -> None:
    command = [sys.executable, "-m", "uvicorn", "--workers", str(_PROCESSES), "--log-level", "warning"]
    port = os.environ["BENCH_PORT"]
    server = subprocess.Popen([*command, "--port", port, "agno_app:app"], stdout=sys.stderr)  # noqa: ASYNC220, S603
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            await _start(client)
            _say({"versions": {"agno": version("agno")}})
            while line := await asyncio.to_thread(sys.stdin.readline):
                order = json.loads(line)
                if order["do"] == "call":
                    seconds = await _call(client, order["value"])
                else:
                    seconds = await _drain(client, order["value"], order["count"])
                _say({"seconds": seconds})
    finally:
        server.terminate()
        await asyncio.to_thread(server.wait)


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_serve())
