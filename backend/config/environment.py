"""Read the environment, the only place of the site that does.

Each function takes the name of a variable and says what is wrong with its value
in one sentence, so that a typing slip ends a start with that sentence.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from pathlib import Path

TRUE_WORDS = {"1", "true", "yes", "on"}
FALSE_WORDS = {"0", "false", "no", "off"}


def read_bool(name: str, *, default: bool) -> bool:
    """The variable as a yes or no; `default` when it is unset or empty."""
    word = os.environ.get(name, "").strip().lower()
    if not word:
        return default
    if word not in TRUE_WORDS | FALSE_WORDS:
        raise ImproperlyConfigured(f"{name} must be 1 or 0, not {word!r}.")
    return word in TRUE_WORDS


def read_list(name: str, *, default: list[str]) -> list[str]:
    """The variable as a list parted by commas; `default` when it is unset or empty."""
    words = [word.strip() for word in os.environ.get(name, "").split(",")]
    return [word for word in words if word] or default


def read_go_runtime() -> dict[str, Any]:
    """The `GO_RUNTIME` setting: the defaults of the library, with what the environment says over them.

    Reads `GO_RUNTIME_HOST`, `GO_RUNTIME_PORT`, `GO_RUNTIME_SOCKET`, `GO_RUNTIME_TOKEN` and
    `GO_RUNTIME_NAMESPACE`. Values are not judged here: the library's system checks do that.
    """
    setting: dict[str, Any] = {
        "host": "localhost",
        "port": 50051,
        "timeout": 30,
        "reconnection_attempts": 5,
        "reconnection_delay": 5,
    }
    for key in ("host", "port", "socket", "token", "namespace"):
        value = os.environ.get(f"GO_RUNTIME_{key.upper()}")
        if value:
            setting[key] = int(value) if key == "port" and value.isdigit() else value
    return setting


def read_database(name: str, *, default_path: Path) -> dict[str, Any]:
    """The default database: the one the URL in the variable names, else SQLite in the file `default_path`.

    `postgresql://user:password@host:5432/name?sslmode=require` is a PostgreSQL database, and what
    follows the `?` is passed to its driver, but for `pool=20`: a pool of at most so many connections for
    each process, in place of one for each thread; `sqlite:////var/lib/site.sqlite3` is a file.
    """
    url = os.environ.get(name, "")
    if not url:
        default_path.parent.mkdir(parents=True, exist_ok=True)
        return _describe_sqlite(str(default_path))
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} is not a URL: {error}.") from error
    if parts.scheme not in {"postgres", "postgresql", "sqlite"}:
        raise ImproperlyConfigured(f"{name} must begin with postgresql:// or sqlite:///, not {parts.scheme!r}.")
    database = unquote(parts.path[1:])
    if not database:
        raise ImproperlyConfigured(f"{name} names no database: write postgresql://user:password@host:5432/name.")
    if parts.scheme == "sqlite":
        return _describe_sqlite(database)
    if not any(map(find_spec, ("psycopg", "psycopg2"))):
        raise ImproperlyConfigured(
            f"{name} names a PostgreSQL database, which needs psycopg: run `make setup`, "
            "or `pip install 'psycopg[binary]>=3.2'` where the site was installed without it."
        )
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    if "pool" in options:
        options["pool"] = _describe_pool(name, options["pool"])
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": database,
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": unquote(parts.hostname or ""),
        "PORT": str(port or ""),
        "OPTIONS": options,
    }


def _describe_pool(name: str, size: str) -> dict[str, Any]:
    if not (size.isdecimal() and int(size) > 0):
        raise ImproperlyConfigured(f"{name} has pool={size}; it must be a number of connections, such as pool=20.")
    if not find_spec("psycopg_pool"):
        raise ImproperlyConfigured(f"{name} has a pool, which needs `pip install 'psycopg[binary,pool]>=3.2'`.")
    return {"min_size": 1, "max_size": int(size)}


def _describe_sqlite(path: str) -> dict[str, Any]:
    # Writers queue for the lock up front (IMMEDIATE) instead of failing when they upgrade to it.
    options = {"timeout": 20, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL;"}
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": path, "OPTIONS": options}
