"""Addresses of the playground, and of conversations and runs in the API."""

from django.urls import include, path
from rest_framework.routers import DefaultRouter

from backend.apps.agents import pages
from backend.apps.agents.api import AgentConversationViewSet, AgentRunViewSet
from django_agent_runtime.api.files import file_patterns
from django_agent_runtime.api.views import async_event_stream, sync_event_stream

router = DefaultRouter()
router.register(r"conversations", AgentConversationViewSet, basename="conversation")
router.register(r"runs", AgentRunViewSet, basename="run")

urlpatterns = [
    path("", pages.StartPage.as_view(), name="home"),
    path("conversations/<uuid:conversation_id>/", pages.ConversationPage.as_view(), name="playground-conversation"),
    path("runs/<uuid:run_id>/", pages.RunPage.as_view(), name="playground-run"),
    path("runs/<uuid:run_id>/cancel/", pages.CancelPage.as_view(), name="playground-cancel"),
    path("runs/<uuid:run_id>/resume/", pages.ResumePage.as_view(), name="playground-resume"),
    path("runs/<uuid:run_id>/retry/", pages.RetryPage.as_view(), name="playground-retry"),
    path("api/agents/", include(router.urls)),
    path("api/agents/runs/<str:run_id>/events/", sync_event_stream, name="run-events"),
    path("api/agents/runs/<str:run_id>/events/stream/", async_event_stream, name="run-stream"),
    path("api/agents/", include(file_patterns)),
]
