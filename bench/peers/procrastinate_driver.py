"""Drives procrastinate on PostgreSQL: see `bench.peer` for what is said on stdin and stdout.

As its documentation has it: an asynchronous task, workers of 20 at a time, and no store of results, so that whoever
waits for a task asks for its status.
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

from procrastinate import App, PsycopgConnector
from procrastinate.jobs import Status

_WORKERS = 2
_CONCURRENCY = "20"
_LOOK_SECONDS = 0.001
_COUNT_SECONDS = 0.01

app = App(connector=PsycopgConnector(conninfo=os.environ["BENCH_DATABASE_URL"]))


@app.task(name="bench.echo")  # type: ignore[untyped-decorator] # as procrastinate is not installed there
async def echo(value: dict[str, Any]) -> dict[str, Any]:
    """Return the input, as the agents and tasks do that it is held against."""
    return value


async def _call(value: dict[str, Any]) -> float:
    begin = time.perf_counter()
    job_id = await echo.defer_async(value=value)
    # There is nothing else to wait for.
    while await app.job_manager.get_job_status_async(job_id) is not Status.SUCCEEDED:  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_SECONDS)
    return time.perf_counter() - begin


async def _drain(value: dict[str, Any], count: int) -> float:
    begin = time.perf_counter()
    job_ids = await echo.batch_defer_async(*({"value": value} for _ in range(count)))
    query = "SELECT count(*) AS open FROM procrastinate_jobs WHERE id >= %(first)s AND status <> 'succeeded'"
    while (await app.connector.execute_query_one_async(query, first=min(job_ids)))["open"]:  # noqa: ASYNC110
        await asyncio.sleep(_COUNT_SECONDS)
    return time.perf_counter() - begin


async def _serve() -> None:
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        command = [sys.executable, "-m", "procrastinate", "--app=procrastinate_driver.app", "worker"]
        workers = [
            subprocess.Popen([*command, "--concurrency", _CONCURRENCY], stdout=sys.stderr)  # noqa: ASYNC220, S603
            for _ in range(_WORKERS)
        ]
        try:
            await _call({})
            _say({"versions": {"procrastinate": version("procrastinate")}})
            while line := await asyncio.to_thread(sys.stdin.readline):
                order = json.loads(line)
                if order["do"] == "call":
                    seconds = await _call(order["value"])
                else:
                    seconds = await _drain(order["value"], order["count"])
                _say({"seconds": seconds})
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                await asyncio.to_thread(worker.wait)


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_serve())
