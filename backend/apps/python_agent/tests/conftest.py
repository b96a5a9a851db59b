from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.core.cache import cache
from rest_framework.test import APIClient

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from django_agent_runtime.testing import GoRuntimeProcess


@pytest.fixture(autouse=True)
def no_throttle_history() -> None:
    """Throttles count in the cache, which outlives a test."""
    cache.clear()


@pytest.fixture
def api(go_runtime: GoRuntimeProcess, django_user_model: type[User], db: None) -> APIClient:
    """A signed-in client of the API, over the real runtime."""
    client = APIClient()
    client.force_authenticate(django_user_model.objects.create_user("ada"))
    return client
