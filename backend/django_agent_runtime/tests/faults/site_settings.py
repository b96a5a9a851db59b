"""Settings of the Django project whose processes the tests of this folder start, freeze and kill."""

from __future__ import annotations

import os
from pathlib import Path

SECRET_KEY = "test"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "rest_framework", "django_agent_runtime"]
ROOT_URLCONF = "django_agent_runtime.tests.faults.site_urls"
ALLOWED_HOSTS = ["127.0.0.1"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": Path(os.environ["SITE_FOLDER"]) / "db.sqlite3",
        "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE"},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
GO_RUNTIME = {"host": "127.0.0.1", "port": int(os.environ["SITE_PORT"]), "timeout": 5}
DJANGO_AGENT_RUNTIME = {
    "RUNTIME_REGISTRY": ["django_agent_runtime.tests.faults.site_agents:register_agents"],
    "LEASE_TTL_SECONDS": float(os.environ["SITE_LEASE"]),
}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
