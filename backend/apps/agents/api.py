"""Conversations and runs, for those who are signed in."""

from __future__ import annotations

from rest_framework.permissions import IsAuthenticated

from django_agent_runtime.api.views import BaseAgentConversationViewSet, BaseAgentRunViewSet


class AgentConversationViewSet(BaseAgentConversationViewSet):
    """The caller's conversations."""

    permission_classes = (IsAuthenticated,)


class AgentRunViewSet(BaseAgentRunViewSet):
    """The caller's runs."""

    permission_classes = (IsAuthenticated,)
