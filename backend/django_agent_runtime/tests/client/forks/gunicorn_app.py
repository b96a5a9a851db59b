"""A WSGI application whose import, which `gunicorn --preload` does before it forks, uses the runtime.

The master holds a subscription and records every event it sees; each request calls, and publishes one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from django_agent_runtime.go_integration import GoRuntimeIntegration

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from django_agent_runtime.types import Event

client = GoRuntimeIntegration(
    host=os.environ["GO_RUNTIME_HOST"], port=int(os.environ["GO_RUNTIME_PORT"]), namespace="gunicorn"
)


def record(event: Event) -> None:
    client.set_state(f"master/{event.data}", os.getpid())


client.set_state("master", os.getpid())
client.subscribe_to_events("request", record)


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    number = environ["PATH_INFO"].strip("/")
    client.set_state(f"worker/{number}", os.getpid())
    assert client.get_state(f"worker/{number}") == os.getpid()
    client.publish_event("request", number)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
