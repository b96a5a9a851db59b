"""The Django app."""

from django.apps import AppConfig
from django.core import checks


class DjangoAgentRuntimeConfig(AppConfig):
    """Registers the system checks, and nothing else: the connection is opened by the first call."""

    name = "django_agent_runtime"
    verbose_name = "Agent runtime"
    # Migrations must not depend on a setting of the project.
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks."""
        from django_agent_runtime.checks import (  # noqa: PLC0415
            check_agent_settings,
            check_database,
            check_environment,
            check_settings,
            check_stream_url,
        )

        checks.register(check_settings, "django_agent_runtime")
        checks.register(check_agent_settings, "django_agent_runtime")
        checks.register(check_database, "django_agent_runtime")
        checks.register(check_environment, "django_agent_runtime")
        checks.register(check_stream_url, "django_agent_runtime", deploy=True)
