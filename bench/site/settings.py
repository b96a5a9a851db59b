"""Settings of the measured site: those of the reference site, without what would limit or log a flood of requests."""

import os

from backend.config.settings import *  # noqa: F403 - it is that site

ROOT_URLCONF = "bench.site.urls"
ASGI_APPLICATION = "bench.site.servers.asgi"
WSGI_APPLICATION = "bench.site.servers.wsgi"

DJANGO_AGENT_RUNTIME = {"RUNTIME_REGISTRY": ["bench.site.agents:register_agents"]}

REST_FRAMEWORK = {**REST_FRAMEWORK, "DEFAULT_THROTTLE_CLASSES": []}  # noqa: F405 - from there
# Workers say when they are connected; a web server that says something of each request is slower for it.
_LEVEL = os.environ.get("BENCH_LOG_LEVEL", "WARNING")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": _LEVEL},
}
