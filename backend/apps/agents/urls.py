"""Addresses of conversations and runs."""

from django.urls import include, path
from rest_framework.routers import DefaultRouter

from backend.apps.agents.api import AgentConversationViewSet, AgentRunViewSet
from django_agent_runtime.api.views import async_event_stream, sync_event_stream

router = DefaultRouter()
router.register(r"conversations", AgentConversationViewSet, basename="conversation")
router.register(r"runs", AgentRunViewSet, basename="run")

urlpatterns = [
    path("", include(router.urls)),
    path("runs/<str:run_id>/events/", sync_event_stream, name="run-events"),
    path("runs/<str:run_id>/events/stream/", async_event_stream, name="run-stream"),
]
