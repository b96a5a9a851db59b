"""The pages of the example: one that shows the runtime, a sign-in, and a demo that drives it."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.mixins import LoginRequiredMixin
from django.contrib.auth.views import LoginView
from django.views.generic import TemplateView


class AboutPage(TemplateView):
    """What this site is; the state of the runtime is asked for by the page itself."""

    template_name = "python_agent/about.html"


class DemoPage(LoginRequiredMixin, TemplateView):
    """Runs tasks, edits state and shows events, all through the API."""

    template_name = "python_agent/demo.html"


class LoginPage(LoginView):
    """Sign in with a session."""

    template_name = "python_agent/login.html"
    redirect_authenticated_user = True

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Say whether this is a development site, whose users can be told how to get an account."""
        return super().get_context_data(is_development=settings.DEBUG, **kwargs)
