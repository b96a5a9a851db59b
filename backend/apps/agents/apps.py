"""The Django app."""

from django.apps import AppConfig


class AgentsConfig(AppConfig):
    """Has no models: conversations and runs are the library's."""

    name = "backend.apps.agents"
    label = "agents"
    verbose_name = "Agents"
