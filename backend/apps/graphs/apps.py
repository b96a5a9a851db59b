"""The Django app."""

from django.apps import AppConfig


class GraphsConfig(AppConfig):
    """Has no models: graphs are the runtime's."""

    name = "backend.apps.graphs"
    label = "graphs"
    verbose_name = "Graphs"
