"""The Celery application that execute_task is measured against, configured as a Django project usually does."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

BROKER_VARIABLE = "BENCH_CELERY_BROKER"
"""The environment variable with the Redis URL of the broker; results go to the next database of it."""

_broker = os.environ.get(BROKER_VARIABLE, "redis://127.0.0.1:6379/0")
app = Celery("bench", broker=_broker, backend=f"{_broker.rpartition('/')[0]}/1")


@app.task(name="bench.echo")
def echo(value: dict[str, Any]) -> dict[str, Any]:
    """Return the input, as the runtime's `echo` task does."""
    return value
