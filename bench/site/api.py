"""What runs are held against: the least that an accepted request costs in Django."""

from __future__ import annotations

from django_agent_runtime.models import AgentConversation
from rest_framework.generics import CreateAPIView
from rest_framework.permissions import IsAuthenticated
from rest_framework.serializers import BaseSerializer, ModelSerializer


class RowSerializer(ModelSerializer[AgentConversation]):
    """A row with a text and a JSON object."""

    class Meta:
        """Of the table of conversations, which has no other work to do than to keep it."""

        model = AgentConversation
        fields = ("id", "agent_key", "title", "metadata", "created_at")


class RowView(CreateAPIView[AgentConversation]):
    """Inserts a row, and does nothing else."""

    serializer_class = RowSerializer
    permission_classes = (IsAuthenticated,)

    def perform_create(self, serializer: BaseSerializer[AgentConversation]) -> None:
        """As the caller's."""
        serializer.save(user=self.request.user)
