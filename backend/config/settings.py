"""Settings of the reference site.

With nothing in the environment it is a development site: DEBUG, SQLite under `var/` (`VAR_DIR`), and
answers for loopback names only. A deployed site sets `DJANGO_DEBUG=0`, `DJANGO_SECRET_KEY`,
`DJANGO_ALLOWED_HOSTS`, and usually `DATABASE_URL` and `GO_RUNTIME_*`.
"""

from __future__ import annotations

import os
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from backend.config import environment

BASE_DIR = Path(__file__).resolve().parents[2]

DEBUG = environment.read_bool("DJANGO_DEBUG", default=True)
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "")
if not SECRET_KEY:
    if not DEBUG:
        raise ImproperlyConfigured("Set DJANGO_SECRET_KEY: without DEBUG the site does not start on a known key.")
    SECRET_KEY = "django-insecure-for-development-only"  # noqa: S105
ALLOWED_HOSTS = environment.read_list("DJANGO_ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = environment.read_list("DJANGO_CSRF_TRUSTED_ORIGINS", default=[])

# What the site keeps on this machine.
VAR_DIR = Path(os.environ.get("VAR_DIR") or BASE_DIR / "var")

# The runtime. See django_agent_runtime.conf for every key.
GO_RUNTIME = environment.read_go_runtime()

# How agents in Python run. See django_agent_runtime.runtime_conf for every key.
DJANGO_AGENT_RUNTIME = {
    "RUNTIME_REGISTRY": [
        "backend.apps.agents.chat:register_agents",
        "backend.apps.agents.refund:register_agents",
        "backend.apps.agents.travel:register_agents",
    ],
}

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "rest_framework.authtoken",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_agent_runtime",
    "backend.apps.agents",
    "backend.apps.graphs",
    "backend.apps.python_agent",
]

# No GZipMiddleware: it would hold back the events of a stream.
MIDDLEWARE = [
    "django_agent_runtime.api.request_id.RequestIdMiddleware",
    "django_agent_runtime.api.paths.path_middleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "backend.config.urls"
ASGI_APPLICATION = "backend.config.asgi.application"
WSGI_APPLICATION = "backend.config.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# Connections are not kept between requests: an event stream would otherwise hold one for hours.
DATABASES = {"default": environment.read_database("DATABASE_URL", default_path=VAR_DIR / "db.sqlite3")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "home"

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = VAR_DIR / "static"

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        # The first one decides between 401 and 403 for a caller who is not signed in: 401, with a way to sign in.
        "rest_framework.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    # Escapes keep JSON whole that UTF-8 cannot carry: half of a surrogate pair.
    "UNICODE_JSON": False,
    "DEFAULT_PARSER_CLASSES": ["django_agent_runtime.api.parsers.BoundedJSONParser"],
    # Counted per process in its own memory; share them between processes by pointing CACHES at a shared cache.
    "DEFAULT_THROTTLE_CLASSES": [
        "rest_framework.throttling.AnonRateThrottle",
        "rest_framework.throttling.UserRateThrottle",
        "rest_framework.throttling.ScopedRateThrottle",
    ],
    "DEFAULT_THROTTLE_RATES": {"anon": "60/min", "user": "1200/min", "token": "10/min", "stream": "60/min"},
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "django_agent_runtime.api.problems.handle_exception",
}

SPECTACULAR_SETTINGS = {
    "TITLE": "DjangoBridge reference site",
    "DESCRIPTION": "Tasks, agents, shared state and events of the Go runtime, through Django.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SCHEMA_PATH_PREFIX": "/api",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"request_id": {"()": "django_agent_runtime.api.request_id.RequestIdFilter"}},
    "formatters": {
        "text": {"()": "django_agent_runtime.logs.TextFormatter"},
        "json": {"()": "django_agent_runtime.logs.JsonFormatter"},
    },
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "filters": ["request_id"],
            "formatter": "text" if DEBUG else "json",
        },
    },
    "root": {"handlers": ["console"], "level": "INFO"},
    # Django's own handlers are replaced, or every line would be printed twice.
    "loggers": {"django": {"handlers": [], "level": "INFO", "propagate": True}},
}

# What follows holds behind HTTPS and is off in development, where there is none.
SECURE_SSL_REDIRECT = environment.read_bool("DJANGO_SSL_REDIRECT", default=not DEBUG)
SECURE_REDIRECT_EXEMPT = [r"^health/"]
SECURE_HSTS_SECONDS = 0 if DEBUG else 31_536_000
SECURE_HSTS_INCLUDE_SUBDOMAINS = not DEBUG
SECURE_HSTS_PRELOAD = not DEBUG
SESSION_COOKIE_SECURE = SECURE_SSL_REDIRECT
CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT
if environment.read_bool("DJANGO_BEHIND_PROXY", default=False):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
