"""The trace of a run in its row, over REST and on its admin page."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from django.urls import reverse

from django_agent_runtime._messages import to_run
from django_agent_runtime.api.serializers import RunSerializer
from django_agent_runtime.grpc_client.agentruntime.v1 import agent_service_pb2 as agent_pb
from django_agent_runtime.models import AgentRun
from django_agent_runtime.projection import PROJECTED_FIELDS, project_run

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.test import Client

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACE_URL = f"https://smith.example.com/{TRACE_ID}"


def make_row(trace_url: str = TRACE_URL) -> AgentRun:
    row = AgentRun(pk=uuid4(), agent_key="chat-agent")
    state = agent_pb.RUN_STATE_RUNNING
    run = agent_pb.Run(run_id=str(row.pk), state=state, sequence=1, trace_id=TRACE_ID, trace_url=trace_url)
    assert project_run(row, to_run(run))
    return row


def test_row_and_serializer() -> None:
    row = make_row()
    assert {"trace_id", "trace_url"} <= set(PROJECTED_FIELDS)
    shown = RunSerializer(row).data
    assert (shown["trace_id"], shown["trace_url"]) == (TRACE_ID, TRACE_URL)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("trace_url", "link"),
    [
        (TRACE_URL, f'<a href="{TRACE_URL}" rel="noreferrer">{TRACE_ID}</a>'),
        ("", TRACE_ID),
        # Whatever a runtime says, it is no script.
        ("javascript:alert(1)", TRACE_ID),
    ],
)
def test_admin_link(client: Client, django_user_model: type[User], trace_url: str, link: str) -> None:
    client.force_login(django_user_model.objects.create_superuser("root"))
    row = make_row(trace_url)
    row.save()
    page = client.get(reverse("admin:django_agent_runtime_agentrun_change", args=[row.pk])).content.decode()
    assert link in page
    assert 'href="javascript' not in page
