"""Ready-made addresses, with the project's own sign-in and anonymous sessions.

path("api/agents/", include("django_agent_runtime.api.urls"))
"""

from __future__ import annotations

from django.urls import include, path
from rest_framework.routers import SimpleRouter

from django_agent_runtime.api.files import file_patterns
from django_agent_runtime.api.permissions import IsAuthenticatedOrAnonymousSession, with_anonymous_sessions
from django_agent_runtime.api.views import (
    BaseAgentConversationViewSet,
    BaseAgentRunViewSet,
    async_event_stream,
    sync_event_stream,
)


class AgentConversationViewSet(BaseAgentConversationViewSet):
    """Conversations of users and of anonymous sessions."""

    authentication_classes = with_anonymous_sessions()
    permission_classes = (IsAuthenticatedOrAnonymousSession,)


class AgentRunViewSet(BaseAgentRunViewSet):
    """Runs of users and of anonymous sessions."""

    authentication_classes = with_anonymous_sessions()
    permission_classes = (IsAuthenticatedOrAnonymousSession,)


router = SimpleRouter()
router.register("conversations", AgentConversationViewSet, basename="conversation")
router.register("runs", AgentRunViewSet, basename="run")

# The first of them stands where the viewset's own is, in case a project takes that away.
run_patterns = [
    path("runs/<str:run_id>/events/", sync_event_stream, name="run-events"),
    path("runs/<str:run_id>/events/stream/", async_event_stream, name="run-stream"),
]
urlpatterns = [path("", include(router.urls)), *run_patterns, *file_patterns]
