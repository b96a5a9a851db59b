"""What the tests in this folder share."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

from django.db import models
from django.utils import timezone
from rest_framework.test import APIClient

from django_agent_runtime.runtime.interfaces import AgentRuntime, RunContext, RunResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User

    from django_agent_runtime.testing import FakeRun

MESSAGES = [{"role": "user", "content": "Hello!"}]
PATIENCE_SECONDS = 10.0


class SiteAgent(AgentRuntime):
    """What this site's own registry knows; the fake does its work."""

    key = "chat-agent"

    async def run(self, ctx: RunContext) -> RunResult:
        return RunResult()


class AnonymousSession(models.Model):
    """As the guide has it, in an app of the site's."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    token = models.CharField(max_length=64, unique=True, db_index=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()

    objects = models.Manager["AnonymousSession"]()

    class Meta:
        app_label = "agents"

    def __str__(self) -> str:
        return str(self.id)

    @property
    def is_expired(self) -> bool:
        return timezone.now() > self.expires_at


def answer(run: FakeRun) -> dict[str, Any]:
    """What the fake does for `chat-agent`."""
    run.emit("tool.call", {"tool": "look"}, visibility="debug")
    run.emit("state.checkpoint", {"at": 1}, visibility="internal")
    run.emit("assistant.delta", {"content": "Hel"})
    run.emit("assistant.message", {"content": "Hello to you!"})
    message = {"role": "assistant", "content": "Hello to you!"}
    return {"final_output": {"response": "Hello to you!"}, "final_messages": [message], "usage": {}}


def ask(run: FakeRun) -> dict[str, Any]:
    """What the fake does for `asking-agent`."""
    return {"final_output": {"answer": run.interrupt({"question": "Go on?"})}, "final_messages": [], "usage": {}}


def fail(run: FakeRun) -> dict[str, Any]:
    """What the fake does for `failing-agent`."""
    raise ValueError("it broke")


def wait_until(condition: Callable[[], Any]) -> Any:
    """The first true value of `condition`, within ten seconds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
    return value


def sign_in(user: User) -> APIClient:
    client = APIClient()
    client.force_authenticate(user)
    return client
