"""TLS and tokens, against the real runtime with certificates of an authority made for the test."""

from __future__ import annotations

import functools
import ssl
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from django_agent_runtime.binary import find_binary
from django_agent_runtime.exceptions import (
    InvalidValue,
    PermissionDenied,
    RateLimited,
    RuntimeUnavailable,
    Unauthenticated,
)
from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.testing.process import GoRuntimeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMITED_BURST = 3


@dataclass
class Authority:
    """A certificate authority in a folder."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self._openssl("req", "-x509", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")

    @property
    def ca(self) -> str:
        return str(self.folder / "ca.pem")

    def issue(self, name: str) -> dict[str, str]:
        """A certificate of this machine with `name` as its common name: the paths of `cert` and `key`."""
        self._openssl(
            *("req", "-x509", "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-addext", "basicConstraints=critical,CA:FALSE", "-CA", "ca.pem", "-CAkey", "ca.key"),
            *("-keyout", f"{name}.key", "-out", f"{name}.pem"),
        )
        return {"cert": str(self.folder / f"{name}.pem"), "key": str(self.folder / f"{name}.key")}

    def _openssl(self, *arguments: str) -> None:
        new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
        subprocess.run(["openssl", *arguments, *new_key], cwd=self.folder, check=True, capture_output=True)


@pytest.fixture(autouse=True)
def _strict_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """From Python 3.13 on, default contexts want more of a certificate than gRPC does, such as its uses."""
    make_context = ssl.create_default_context

    def make_strict_context(*arguments: Any, **keywords: Any) -> ssl.SSLContext:
        context = make_context(*arguments, **keywords)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", make_strict_context)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "ours")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "theirs")


@pytest.fixture(scope="module")
def server_flags(authority: Authority) -> tuple[str, ...]:
    files = authority.issue("runtime")
    return ("--tls-cert", files["cert"], "--tls-key", files["key"])


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The secret of each token by its name, and under `file` the tokens file that has them all."""
    folder = tmp_path_factory.mktemp("tokens")
    tokens = {
        "web": ("--namespaces", "default,shop"),
        "reader": ("--access", "read"),
        "limited": ("--rate", "0.01", "--burst", str(LIMITED_BURST)),
    }
    lines, found = ["tokens:"], {}
    for name, options in tokens.items():
        command = [str(find_binary()), "token", "create", "--name", name, *options]
        created = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        found[name] = created[0]
        lines += created[1:]
    (folder / "tokens.yaml").write_text("\n".join(lines))
    return found | {"file": str(folder / "tokens.yaml")}


@pytest.fixture(scope="module")
def runtime(
    server_flags: tuple[str, ...], secrets: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GoRuntimeProcess]:
    """A runtime that asks for TLS and a token."""
    arguments = (*server_flags, "--tokens-file", secrets["file"])
    with GoRuntimeProcess(tmp_path_factory.mktemp("secure"), arguments=arguments) as process:
        yield process


@pytest.fixture(scope="module")
def mutual_runtime(
    authority: Authority, server_flags: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GoRuntimeProcess]:
    """A runtime that asks for a certificate of the authority."""
    arguments = (*server_flags, "--client-ca", authority.ca)
    with GoRuntimeProcess(tmp_path_factory.mktemp("mutual"), arguments=arguments) as process:
        yield process


def make_client(runtime: GoRuntimeProcess, **settings: Any) -> GoRuntimeIntegration:
    return GoRuntimeIntegration(**{**runtime.settings, "reconnection_attempts": 1, "timeout": 5}, **settings)


def test_calls_and_streams_over_tls_with_a_token(
    runtime: GoRuntimeProcess, authority: Authority, secrets: dict[str, str]
) -> None:
    with make_client(runtime, tls={"ca": authority.ca}, token=secrets["web"]) as client:
        assert client.execute_task("echo", {"over": "tls"}) == {"over": "tls"}
        with client.stream_events("t") as events, client.watch_state("k") as changes:
            client.publish_event("t", 1)
            client.set_state("k", 2)
            assert (next(events).data, next(changes).value) == (1, 2)


async def test_asyncio_over_tls(runtime: GoRuntimeProcess, authority: Authority, secrets: dict[str, str]) -> None:
    async with make_client(runtime, tls={"ca": authority.ca}, token=secrets["web"]) as client:
        assert await client.aset_state("asyncio", 1)


def test_the_name_in_the_certificate_counts(
    runtime: GoRuntimeProcess, authority: Authority, secrets: dict[str, str]
) -> None:
    for name, fits in {"localhost": True, "elsewhere.example": False}.items():
        client = make_client(runtime, tls={"ca": authority.ca, "server_name": name}, token=secrets["web"])
        assert client.is_connected() is fits
        client.disconnect()


@pytest.mark.parametrize("tls", [None, True, "stranger"])
def test_a_client_that_does_not_trust_the_runtime_cannot_reach_it(
    runtime: GoRuntimeProcess, stranger: Authority, secrets: dict[str, str], tls: Any
) -> None:
    tls = {"ca": stranger.ca} if tls == "stranger" else tls
    client = make_client(runtime, tls=tls, token=secrets["web"])
    with pytest.raises(RuntimeUnavailable):
        client.connect()
    client.disconnect()


# The runtime listens on IPv4 alone, so that the other address of "localhost" is refused.
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize(
    ("tls", "said"),
    [
        ("none", r"speaks TLS there\. Is TLS on\? Set `tls`"),
        ("system", r"certificate is refused: .*certificate.*`ca`"),
        ("stranger", r"certificate is refused: .*certificate.*`ca`"),
        ("name", r"certificate is refused: .*elsewhere\.example.*`server_name`"),
    ],
)
def test_what_is_wrong_with_tls_is_said(
    runtime: GoRuntimeProcess, authority: Authority, stranger: Authority, host: str, tls: str, said: str
) -> None:
    setting = {
        "none": None,
        "system": True,
        "stranger": {"ca": stranger.ca},
        "name": {"ca": authority.ca, "server_name": "elsewhere.example"},
    }[tls]
    settings = {**runtime.settings, "host": host, "reconnection_attempts": 1, "timeout": 1, "tls": setting}
    client = GoRuntimeIntegration(**settings)
    for call in (client.connect, client.get_server_info):
        with pytest.raises(RuntimeUnavailable, match=said) as refusal:
            call()
        assert "Connection refused" not in str(refusal.value)
    client.disconnect()


async def test_what_is_wrong_with_tls_is_said_in_asyncio_too(runtime: GoRuntimeProcess) -> None:
    client = make_client(runtime)
    with pytest.raises(RuntimeUnavailable, match="speaks TLS there"):
        await client.aconnect()
    client.disconnect()


def test_tls_to_a_runtime_without_it_is_said(go_runtime_process: GoRuntimeProcess, authority: Authority) -> None:
    client = make_client(go_runtime_process, tls={"ca": authority.ca})
    with pytest.raises(RuntimeUnavailable, match=r"does not speak TLS there\. Is TLS on\? Take `tls` out"):
        client.connect()
    client.disconnect()


def test_a_runtime_that_asks_for_a_certificate_is_said(
    mutual_runtime: GoRuntimeProcess, authority: Authority, stranger: Authority
) -> None:
    for files in ({}, stranger.issue("web")):
        client = make_client(mutual_runtime, tls={"ca": authority.ca, **files})
        with pytest.raises(RuntimeUnavailable, match=r"refuses the handshake: .*`cert` and `key`"):
            client.connect()
        client.disconnect()


@pytest.mark.parametrize("key", ["ca", "cert", "key"])
@pytest.mark.parametrize("content", ["", "no certificate", None])
def test_a_file_that_is_not_what_it_should_be_is_named(
    runtime: GoRuntimeProcess, authority: Authority, tmp_path: Path, key: str, content: str | None
) -> None:
    path = tmp_path / "file.pem"
    if content is not None:
        path.write_text(content)
    client = make_client(runtime, tls={"ca": authority.ca, **authority.issue("web"), key: str(path)})
    subscribe = functools.partial(client.subscribe_to_events, "t", print)
    for call in (client.connect, client.is_connected, subscribe, subscribe, client.watch_state):
        with pytest.raises(InvalidValue, match=rf"\['{key}'\].*file\.pem"):
            call()
    client.disconnect()


@pytest.mark.parametrize("token", [None, "wrong", "art_" + "A" * 43])
def test_an_unknown_token_is_refused(runtime: GoRuntimeProcess, authority: Authority, token: str | None) -> None:
    client = make_client(runtime, tls={"ca": authority.ca}, token=token)
    for call in (client.connect, client.get_server_info, lambda: client.subscribe_to_events("t", print)):
        with pytest.raises(Unauthenticated) as refusal:
            call()
        assert token is None or token not in str(refusal.value)
    client.disconnect()


def test_a_token_for_reading_reads(runtime: GoRuntimeProcess, authority: Authority, secrets: dict[str, str]) -> None:
    with make_client(runtime, tls={"ca": authority.ca}, token=secrets["web"]) as writer:
        writer.set_state("shared", 1)
    with make_client(runtime, tls={"ca": authority.ca}, token=secrets["reader"]) as client:
        assert client.get_state("shared") == 1
        for call in (
            lambda: client.set_state("shared", 2),
            lambda: client.delete_state("shared"),
            lambda: client.publish_event("t", 1),
            lambda: client.submit_task("echo"),
        ):
            with pytest.raises(PermissionDenied):
                call()
        assert client.get_state("shared") == 1


def test_a_token_is_good_for_its_namespaces(
    runtime: GoRuntimeProcess, authority: Authority, secrets: dict[str, str]
) -> None:
    def make(namespace: str) -> GoRuntimeIntegration:
        return make_client(runtime, tls={"ca": authority.ca}, token=secrets["web"], namespace=namespace)

    with make("shop") as client:
        assert client.set_state("here", 1)
    with make("default") as client:
        assert client.get_state("here") is None
    elsewhere = make("elsewhere")
    with pytest.raises(PermissionDenied) as refusal:
        elsewhere.get_state("here")
    assert refusal.value.metadata["namespace"] == "elsewhere"
    elsewhere.disconnect()


def test_a_rate_limit_says_when_to_call_again(
    runtime: GoRuntimeProcess, authority: Authority, secrets: dict[str, str]
) -> None:
    client = make_client(runtime, tls={"ca": authority.ca}, token=secrets["limited"])
    for _ in range(LIMITED_BURST):
        client.get_state("k")
    with pytest.raises(RateLimited) as refusal:
        client.get_state("k")
    # One call in a hundred seconds.
    assert refusal.value.retry_after is not None
    assert 0 < refusal.value.retry_after <= 100
    client.disconnect()


def test_a_client_certificate_lets_in(mutual_runtime: GoRuntimeProcess, authority: Authority) -> None:
    with make_client(mutual_runtime, tls={"ca": authority.ca, **authority.issue("web")}) as client:
        assert client.set_state("k", 1)


@pytest.mark.parametrize("certificate", ["none", "stranger"])
def test_no_other_certificate_does(
    mutual_runtime: GoRuntimeProcess, authority: Authority, stranger: Authority, certificate: str
) -> None:
    files = stranger.issue("web") if certificate == "stranger" else {}
    client = make_client(mutual_runtime, tls={"ca": authority.ca, **files})
    with pytest.raises(RuntimeUnavailable):
        client.connect()
    client.disconnect()
