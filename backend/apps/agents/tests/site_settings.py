"""Settings of the site under test: its own, with more agents."""

from __future__ import annotations

from backend.config.settings import *  # noqa: F403
from backend.config.settings import DJANGO_AGENT_RUNTIME as OF_SITE

DJANGO_AGENT_RUNTIME = {
    "RUNTIME_REGISTRY": [*OF_SITE["RUNTIME_REGISTRY"], "backend.apps.agents.tests.site_agents"],
}
