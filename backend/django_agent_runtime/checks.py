"""System checks: what is wrong with `GO_RUNTIME`, with `DJANGO_AGENT_RUNTIME` and with the process's surroundings.

Identifiers are stable, so that `SILENCED_SYSTEM_CHECKS` can name them:

    E000  GO_RUNTIME is not a dict          E006  socket
    E001  host                              E007  token
    E002  port                              E008  tls
    E003  timeout                           E009  namespace
    E004  reconnection_attempts             W001  a key that is not a setting
    E005  reconnection_delay                W002  GRPC_ENABLE_FORK_SUPPORT is off
                                            W003  uWSGI without lazy-apps
                                            W004  a file of tls cannot be read

    E010  DJANGO_AGENT_RUNTIME is not a dict, or a value of it is none that its key takes
    E011  ANONYMOUS_SESSION_MODEL names no model, or one without a field `token`
    W005  a key of it that is not a setting
    W006  an entry of RUNTIME_REGISTRY cannot be loaded
    W007  the sessions of ANONYMOUS_SESSION_MODEL never expire
    W008  SQLite, and transactions that do not begin as writers: they fail while agents write
    I001  QUEUE_BACKEND or EVENT_BUS_BACKEND is set: the runtime's journal is both
    I002  LANGFUSE_ENABLED is set, which does nothing: traces are OpenTelemetry's
    I003  PUBLIC_STREAM_URL is not set: stream tickets have no address (with `check --deploy`)
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Info
from django.core.checks import Warning as CheckWarning
from django.core.exceptions import ImproperlyConfigured
from django.db import router

from django_agent_runtime import runtime_conf
from django_agent_runtime._tls import check_files, read_files
from django_agent_runtime.conf import load, validate
from django_agent_runtime.exceptions import InvalidValue
from django_agent_runtime.models import AgentRun
from django_agent_runtime.runtime.registry import list_runtimes

if TYPE_CHECKING:
    from collections.abc import Mapping

ERROR_IDS = {
    "": "E000",
    "host": "E001",
    "port": "E002",
    "timeout": "E003",
    "reconnection_attempts": "E004",
    "reconnection_delay": "E005",
    "socket": "E006",
    "token": "E007",
    "tls": "E008",
    "namespace": "E009",
}
UNKNOWN_KEY_ID = "W001"


def check_settings(**_kwargs: Any) -> list[CheckMessage]:
    """One message for each bad value of `GO_RUNTIME`; an unknown key is a warning with the known ones."""
    messages: list[CheckMessage] = []
    for problem in validate(getattr(settings, "GO_RUNTIME", {})):
        kind = Error if problem.key in ERROR_IDS else CheckWarning
        code = ERROR_IDS.get(problem.key, UNKNOWN_KEY_ID)
        subject = f"GO_RUNTIME[{problem.key!r}]" if problem.key else "GO_RUNTIME"
        messages.append(kind(f"{subject} {problem.message}.", hint=problem.hint, id=f"django_agent_runtime.{code}"))
    return messages or _check_tls_files()


def check_agent_settings(**_kwargs: Any) -> list[CheckMessage]:
    """One message for each bad value of `DJANGO_AGENT_RUNTIME`, and for what is accepted but means something else."""
    given = getattr(settings, "DJANGO_AGENT_RUNTIME", {})
    messages: list[CheckMessage] = []
    for problem in runtime_conf.validate(given):
        is_setting = not problem.key or problem.key.lower() in runtime_conf.AgentRuntimeSettings.__dataclass_fields__
        kind, code = (Error, "E010") if is_setting else (CheckWarning, "W005")
        subject = f"DJANGO_AGENT_RUNTIME[{problem.key!r}]" if problem.key else "DJANGO_AGENT_RUNTIME"
        messages.append(kind(f"{subject} {problem.message}.", hint=problem.hint, id=f"django_agent_runtime.{code}"))
    if any(isinstance(message, Error) for message in messages):
        return messages
    messages.extend(_check_what_is_named())
    backends = [key for key in ("QUEUE_BACKEND", "EVENT_BUS_BACKEND") if key in given]
    if backends:
        subject = " and ".join(backends)
        messages.append(
            Info(
                f"DJANGO_AGENT_RUNTIME: {subject} may stay, and the runtime's own journal is used whatever it says.",
                hint="Neither PostgreSQL nor Redis is needed for runs and their events.",
                id="django_agent_runtime.I001",
            )
        )
    if given.get("LANGFUSE_ENABLED"):
        messages.append(
            Info(
                "DJANGO_AGENT_RUNTIME: LANGFUSE_ENABLED may stay, and does nothing by itself.",
                hint="The runtime and its workers trace with OpenTelemetry, which Langfuse takes at its "
                "/api/public/otel: name that in OTEL_EXPORTER_OTLP_ENDPOINT.",
                id="django_agent_runtime.I002",
            )
        )
    return messages


def check_database(**_kwargs: Any) -> list[CheckMessage]:
    """Warn of a SQLite whose transactions fail where they read, then write, and an agent's events are written too.

    The library's own begin with a write; the admin's and the project's need not.
    """
    database = settings.DATABASES.get(router.db_for_write(AgentRun), {})
    options = database.get("OPTIONS") or {}
    is_sqlite = str(database.get("ENGINE", "")).endswith("sqlite3")
    if not is_sqlite or str(options.get("transaction_mode", "")).upper() in {"IMMEDIATE", "EXCLUSIVE"}:
        return []
    return [
        CheckWarning(
            "SQLite's transactions begin as readers: the admin's, and those of views that read before they write, may "
            "fail with 'database is locked' while agents are at work.",
            hint="Set DATABASES['default']['OPTIONS'] = {'transaction_mode': 'IMMEDIATE', 'timeout': 20}.",
            id="django_agent_runtime.W008",
        )
    ]


def check_stream_url(**_kwargs: Any) -> list[CheckMessage]:
    """Tell of stream tickets without an address: a site that is deployed has readers, which Django need not serve."""
    given = getattr(settings, "DJANGO_AGENT_RUNTIME", {})
    if isinstance(given, dict) and given.get("PUBLIC_STREAM_URL"):
        return []
    return [
        Info(
            "DJANGO_AGENT_RUNTIME: PUBLIC_STREAM_URL is not set, so that stream-ticket/ answers with url null.",
            hint="To have browsers read events from the runtime, set it to where they reach its HTTP port, and its "
            "--stream-origins to this site. Through Django they are read without.",
            id="django_agent_runtime.I003",
        )
    ]


def _check_what_is_named() -> list[CheckMessage]:
    """Whether the model and the agents that the settings name are there."""
    messages: list[CheckMessage] = []
    name = runtime_conf.get_agent_runtime_settings().anonymous_session_model
    if name:
        messages.extend(_check_session_model(name))
    try:
        list_runtimes()
    except ImproperlyConfigured as error:
        messages.append(
            # `runagent` says so itself, and waits for the code to change.
            CheckWarning(
                f"{error}.",
                hint="An entry of RUNTIME_REGISTRY is 'package.module:function', a function that registers agents.",
                id="django_agent_runtime.W006",
            )
        )
    return messages


def _check_session_model(name: str) -> list[CheckMessage]:
    """Whether the model is there, and has what `AnonymousSessionAuthentication` asks of it."""
    setting = "DJANGO_AGENT_RUNTIME['ANONYMOUS_SESSION_MODEL']"
    messages: list[CheckMessage] = []
    try:
        model = apps.get_model(name)
    except (LookupError, ValueError) as error:
        why = str(error).rstrip(".")
        return [
            Error(
                f"{setting} names no model that is installed: {why}.",
                hint="Name it as app_label.ModelName, and its app in INSTALLED_APPS.",
                id="django_agent_runtime.E011",
            )
        ]
    if "token" not in {field.name for field in model._meta.concrete_fields}:  # noqa: SLF001 - as Django's checks do
        messages.append(
            Error(
                f"{setting} is {name!r}, which has no field 'token': every request that sends a token would fail.",
                hint="Add token = models.CharField(max_length=64, unique=True), by which sessions are looked for.",
                id="django_agent_runtime.E011",
            )
        )
    if not hasattr(model, "is_expired") and not hasattr(model, "expires_at"):
        messages.append(
            CheckWarning(
                f"{setting} is {name!r}, which has neither is_expired nor expires_at: its sessions never expire.",
                hint="Add expires_at = models.DateTimeField(), or a property is_expired.",
                id="django_agent_runtime.W007",
            )
        )
    return messages


def _check_tls_files() -> list[CheckMessage]:
    """What the files of `tls` hold. One that is not there may be elsewhere, where the site is served: a warning."""
    tls = load(getattr(settings, "GO_RUNTIME", {})).tls
    if tls is None:
        return []
    hint = "ca: certificates of authorities; cert and key: a certificate and its key without a password; all in PEM."
    try:
        read_files(tls)
    except InvalidValue as problem:
        return [CheckWarning(f"{problem}.", hint=hint, id="django_agent_runtime.W004")]
    try:
        check_files(tls)
    except InvalidValue as problem:
        return [Error(f"{problem}.", hint=hint, id=f"django_agent_runtime.{ERROR_IDS['tls']}")]
    return []


def check_environment(**_kwargs: Any) -> list[CheckMessage]:
    """Warn of surroundings in which calls are known to hang after a fork."""
    messages: list[CheckMessage] = []
    if os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "1").strip().lower() in {"0", "false", "no", "off"}:
        messages.append(
            CheckWarning(
                "GRPC_ENABLE_FORK_SUPPORT is off: a process that forks after a call hangs.",
                hint="Take GRPC_ENABLE_FORK_SUPPORT out of the environment.",
                id="django_agent_runtime.W002",
            )
        )
    # This module exists only inside a uWSGI worker or master.
    uwsgi = sys.modules.get("uwsgi")
    options: Mapping[str, Any] = getattr(uwsgi, "opt", {})
    if uwsgi is not None and not {"lazy-apps", b"lazy-apps"} & set(options):
        messages.append(
            CheckWarning(
                "uWSGI forks its workers after it has loaded the site, where Python cannot prepare the connection.",
                hint="Set lazy-apps = true in the uWSGI configuration.",
                id="django_agent_runtime.W003",
            )
        )
    return messages
