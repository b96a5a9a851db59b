"""Fixtures of every test in this folder: the fake runtime and the real one, as users get them."""

from __future__ import annotations

import pytest
from django.db import connections

pytest_plugins = ["django_agent_runtime.testing.fixtures"]


@pytest.fixture(scope="session")
def django_db_modify_db_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Have SQLite keep the test database in a file: threads that share one in memory do not wait for each other."""
    settings = connections["default"].settings_dict
    if settings["ENGINE"] == "django.db.backends.sqlite3":
        settings["TEST"]["NAME"] = str(tmp_path_factory.mktemp("database") / "test.sqlite3")
