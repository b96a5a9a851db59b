"""The setting `GO_RUNTIME`: how this project reaches its runtime.

`validate` says what is wrong with a mapping and `load` turns a valid one into `RuntimeSettings`; both are pure,
so that a system check, the client and a test all judge by the same rules. Nothing here imports Django.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypedDict

__all__ = ["MAX_SECONDS", "Problem", "RuntimeSettings", "SettingChanges", "TlsSettings", "load", "validate"]

# A century: beyond it, clocks and timers overflow one after another.
MAX_SECONDS = 100 * 365 * 86400

_NAMESPACE = re.compile(r"[a-z0-9-]{1,63}")
# A Unix socket's address holds 108 bytes with the closing zero.
_SOCKET_PATH_BYTES = 107
_TLS_KEYS = ("ca", "cert", "key", "server_name")


class Problem(NamedTuple):
    """One thing wrong with the settings."""

    key: str
    """The key at fault; empty when the whole is."""
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """How to speak TLS: paths of PEM files, and the name the server's certificate must carry."""

    ca: str | None = None
    """None: the system's certificate authorities."""
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """Where the runtime is and how to talk to it."""

    host: str = "localhost"
    port: int = 50051
    timeout: float = 30
    """Seconds a call may take when it does not say otherwise."""
    reconnection_attempts: int = 5
    """How often `connect()` tries."""
    reconnection_delay: float = 5
    """Seconds between two tries of `connect()`."""
    socket: str | None = None
    """Path of the runtime's Unix socket, used instead of host and port."""
    token: str | None = None
    tls: TlsSettings | None = None
    namespace: str = "default"

    @property
    def address(self) -> str:
        """Where the runtime is, for people."""
        return self.socket or f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class SettingChanges(TypedDict, total=False):
    """Some of the settings, as `GO_RUNTIME` and the client's arguments take them."""

    host: str
    port: int
    timeout: float
    reconnection_attempts: int
    reconnection_delay: float
    socket: str | None
    token: str | None
    tls: bool | Mapping[str, str] | TlsSettings | None
    namespace: str


def validate(mapping: object) -> list[Problem]:
    """Everything wrong with `mapping`, in the order of its keys; empty when it can be used."""
    if not isinstance(mapping, Mapping):
        return [Problem("", f"must be a dict, not {type(mapping).__name__}", "GO_RUNTIME = {'host': 'localhost'}")]
    problems = []
    for key, value in mapping.items():
        rule = _RULES.get(key)
        if rule is None:
            problems.append(Problem(str(key), "is not a setting", f"Known settings: {', '.join(_RULES)}."))
        elif not rule.accepts(value):
            problems.append(Problem(key, f"is {_describe(key, value)}, must be {rule.expects}", rule.hint))
    return problems


def load(mapping: Mapping[str, Any]) -> RuntimeSettings:
    """The settings in `mapping`, defaults filled in. Keys that are no setting are left out.

    Raises:
        ValueError: One sentence for every other problem that `validate` finds.
    """
    problems = [problem for problem in validate(mapping) if problem.key in _RULES or not problem.key]
    if problems:
        raise ValueError("; ".join(f"GO_RUNTIME {p.key!r} {p.message} ({p.hint})" for p in problems))
    values = {key: value for key, value in mapping.items() if key in _RULES}
    tls = values.get("tls")
    if isinstance(tls, Mapping):
        values["tls"] = TlsSettings(**tls)
    elif not isinstance(tls, TlsSettings):
        values["tls"] = TlsSettings() if tls else None
    if "host" in values:
        values["host"] = values["host"].strip("[]")
    for optional in ("socket", "token"):
        values[optional] = values.get(optional) or None
    return RuntimeSettings(**values)


class _Rule(NamedTuple):
    accepts: Callable[[Any], bool]
    expects: str
    hint: str


def _describe(key: str, value: Any) -> str:
    # A token never reaches a log or a terminal, not even a malformed one.
    return f"a {type(value).__name__}" if key == "token" else repr(value)


def _is_seconds(value: Any) -> bool:
    # NaN is not between anything.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= MAX_SECONDS


def _is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_host(value: Any) -> bool:
    if not isinstance(value, str) or not value or re.search(r"[\s/]", value):
        return False
    try:
        return ":" not in value or ipaddress.ip_address(value.strip("[]")).version == 6  # noqa: PLR2004
    except ValueError:
        return False


def _is_socket(value: Any) -> bool:
    if value is None or value == "":
        return True
    # A relative one would be another socket for each folder that a process is started in.
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        return False
    return len(value.encode(errors="surrogateescape")) <= _SOCKET_PATH_BYTES


def _is_token(value: Any) -> bool:
    return value is None or (isinstance(value, str) and all(" " < char <= "~" for char in value))


def _is_tls(value: Any) -> bool:
    if value is None or isinstance(value, (bool, TlsSettings)):
        return True
    if not isinstance(value, Mapping) or not set(value) <= set(_TLS_KEYS):
        return False
    if not all(item is None or (isinstance(item, str) and item) for item in value.values()):
        return False
    return bool(value.get("cert")) == bool(value.get("key"))


def _is_namespace(value: Any) -> bool:
    return isinstance(value, str) and _NAMESPACE.fullmatch(value) is not None


_RULES: dict[str, _Rule] = {
    "host": _Rule(_is_host, "a host name or address", "The name alone, without a scheme or port: 'localhost'."),
    "port": _Rule(
        lambda v: _is_whole(v, 1, 65535), "a whole number from 1 to 65535", "The runtime's default is 50051."
    ),
    "timeout": _Rule(
        lambda v: _is_seconds(v) and v > 0, f"a number of seconds above 0, at most {MAX_SECONDS}", "The default is 30."
    ),
    "reconnection_attempts": _Rule(
        lambda v: _is_whole(v, 1, 1_000_000), "a whole number from 1 to 1000000", "The default is 5."
    ),
    "reconnection_delay": _Rule(_is_seconds, f"a number of seconds from 0 to {MAX_SECONDS}", "The default is 5."),
    "socket": _Rule(
        _is_socket,
        f"an absolute path of at most {_SOCKET_PATH_BYTES} bytes, or None",
        "The path given to `serve --socket`, such as '/run/agent-runtime/grpc.sock'.",
    ),
    "token": _Rule(_is_token, "printable ASCII without spaces, or None", "The token itself, without 'Bearer'."),
    "tls": _Rule(
        _is_tls,
        f"True, False, None or a dict of paths with {', '.join(_TLS_KEYS)}",
        "cert and key go together: {'ca': 'ca.pem', 'cert': 'client.pem', 'key': 'client-key.pem'}.",
    ),
    "namespace": _Rule(
        _is_namespace, "1 to 63 of a-z, 0-9 and '-'", "The namespace keeps state, events and runs apart."
    ),
}

if not set(_RULES) == {field.name for field in fields(RuntimeSettings)} == set(SettingChanges.__annotations__):
    raise AssertionError("conf: every setting needs a rule and a type")
