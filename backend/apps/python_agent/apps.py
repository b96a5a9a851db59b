"""The Django app."""

from django.apps import AppConfig


class PythonAgentConfig(AppConfig):
    """Has no models: what it shows lives in the runtime."""

    name = "backend.apps.python_agent"
    label = "python_agent"
    verbose_name = "Python agent"
