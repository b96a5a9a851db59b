"""A Celery application whose worker uses the runtime in its parent, with a subscription, before it forks."""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery
from celery.signals import worker_init

from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.types import Event

folder = Path(os.environ["CELERY_FOLDER"])
app = Celery("forks", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": str(folder),
    "data_folder_out": str(folder),
    "control_folder": str(folder),
}
client = GoRuntimeIntegration(
    host=os.environ["GO_RUNTIME_HOST"], port=int(os.environ["GO_RUNTIME_PORT"]), namespace="celery"
)


def record(event: Event) -> None:
    client.set_state(f"parent/{event.data}", os.getpid())


@worker_init.connect
def use_in_parent(**_: object) -> None:
    client.set_state("parent", os.getpid())
    client.subscribe_to_events("task", record)


@app.task
def use_in_child(number: int) -> None:
    client.set_state(f"child/{number}", os.getpid())
    assert client.get_state(f"child/{number}") == os.getpid()
    client.publish_event("task", number)
