"""TLS files as they must be, and what stands between a client and a port when gRPC does not say.

gRPC reports why the last address it tried failed. Where a name has several (`localhost`), that one was often only
refused, and the handshake that failed on another goes untold; and of a port that speaks TLS to a client that does
not, or the other way round, it tells that the connection ended. So the client looks for itself, once a call has
failed.
"""

from __future__ import annotations

import os
import socket
import ssl
from pathlib import Path
from typing import NamedTuple

from .conf import RuntimeSettings, TlsSettings
from .exceptions import InvalidValue

__all__ = ["Files", "check_files", "explain", "read_files"]

# For each address; who is slower than that is not told apart from a port without TLS.
_PATIENCE_SECONDS = 0.5


class Files(NamedTuple):
    """What the files hold; None where none is named."""

    ca: bytes | None
    cert: bytes | None
    key: bytes | None


def read_files(tls: TlsSettings) -> Files:
    """The files as they are.

    Raises:
        InvalidValue: One cannot be read.
    """
    return Files(_read("ca", tls.ca), _read("cert", tls.cert), _read("key", tls.key))


def check_files(tls: TlsSettings) -> Files:
    """The files, but for those that gRPC would take and then fail each handshake with.

    Raises:
        InvalidValue: One cannot be read, `ca` holds no certificate, or `cert` and `key` are no pair.
    """
    files = read_files(tls)
    _make_context(tls)
    return files


def explain(settings: RuntimeSettings) -> str:
    """Why no connection comes about, if TLS is why; otherwise an empty string.

    Connects to each address of the runtime, and waits for half a second at most.
    """
    try:
        addresses = _addresses_of(settings)
        context = _make_context(settings.tls) if settings.tls else _make_credulous_context()
    except (OSError, InvalidValue):
        return ""
    for family, address in addresses:
        with socket.socket(family, socket.SOCK_STREAM) as plain:
            plain.settimeout(_PATIENCE_SECONDS)
            try:
                plain.connect(address)
            except OSError:
                continue
            if reason := _try_handshake(plain, context, settings):
                return reason
    return ""


def _read(key: str, path: str | None) -> bytes | None:
    try:
        return None if path is None else Path(path).read_bytes()
    except OSError as error:
        raise InvalidValue(f"GO_RUNTIME['tls']['{key}'] names a file that cannot be read: {error}") from error


def _addresses_of(settings: RuntimeSettings) -> list[tuple[int, str | tuple[str, int]]]:
    if settings.socket is not None:
        return [(socket.AF_UNIX, os.path.abspath(settings.socket))]  # noqa: PTH100 - a socket's address, no file
    found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
    return [(family, (str(address[0]), int(address[1]))) for family, _, _, _, address in found]


def _try_handshake(plain: socket.socket, context: ssl.SSLContext, settings: RuntimeSettings) -> str:
    name = (settings.tls and settings.tls.server_name) or ("localhost" if settings.socket else settings.host)
    try:
        with context.wrap_socket(plain, server_hostname=name) as secure:
            if settings.tls is not None:
                # Of a client's certificate, TLS 1.3 speaks only when the handshake is over.
                secure.recv(1)
    except ssl.SSLCertVerificationError as error:
        return (
            f"its certificate is refused: {error.verify_message}. "
            "Does `ca` in GO_RUNTIME['tls'] name the authority that issued it, and `host` or `server_name` the server?"
        )
    except ssl.SSLError as error:
        return _describe(error) if settings.tls else ""
    except OSError:
        return ""
    return "" if settings.tls else "it speaks TLS there. Is TLS on? Set `tls` in GO_RUNTIME, such as {'ca': 'ca.pem'}"


def _describe(error: ssl.SSLError) -> str:
    words = (error.reason or "").lower().replace("_", " ")
    if "alert" in words:
        return f"it refuses the handshake: {words}. Are `cert` and `key` in GO_RUNTIME['tls'] what it asks for?"
    return "it does not speak TLS there. Is TLS on? Take `tls` out of GO_RUNTIME, or start it with `--tls-cert`"


def _make_context(tls: TlsSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca)
    except (ssl.SSLError, ValueError) as error:
        raise InvalidValue(f"GO_RUNTIME['tls']['ca'] holds no certificate in PEM: {tls.ca} ({error})") from error
    if tls.cert is not None:
        try:
            # Without a password, OpenSSL would ask the terminal for one.
            context.load_cert_chain(tls.cert, tls.key, password="")
        except (ssl.SSLError, ValueError) as error:
            raise InvalidValue(
                f"GO_RUNTIME['tls']['cert'] and ['key'] are no certificate and key without a password that belong "
                f"together, in PEM: {tls.cert}, {tls.key} ({error})"
            ) from error
    # From Python 3.13 on a default. gRPC takes authorities that have no key usage: it would not be what is wrong.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["h2"])
    return context


def _make_credulous_context() -> ssl.SSLContext:
    """For a look at whether there is TLS at all: nothing is sent, and nothing that comes is believed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context
