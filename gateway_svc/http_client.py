"""What every HTTP client of ours holds to, whoever answers it."""

import functools
import os
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpcore2
import httpx2

from gateway_svc.errors import SettingsError
from recording.channel.watched import Watched, WrongFile
from service_kit.bounds import HEAD
from service_kit.proxies import why_unusable

Tls = Callable[[], ssl.SSLContext]
"""Gives the context of the next TLS connections: what they trust, and the certificate that they show."""

CONNECTION_ERRORS = (httpx2.HTTPError, OSError)
"""All that a connection can raise. httpx2 does not translate the errors of TLS that come behind the handshake, such as
a server's refusal of a client without a certificate in TLS 1.3; they are OSErrors."""
_READ_BYTES = 4096
"""At once, ahead of a response: so others have their turn between small informational responses."""


def tls_context() -> ssl.SSLContext:
    """What TLS connections trust, read once and shared by all clients: reading it holds the loop for tens of ms.

    httpx2 takes it from SSL_CERT_FILE or SSL_CERT_DIR, or else from the system.
    """
    return _tls_context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


def check_trusted() -> None:
    """Looks at what the environment names to be trusted in the place of the system's CAs.

    Raises:
        SettingsError: it cannot be used.
    """
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if not (name := os.environ.get(variable)):
            continue
        path = Path(name)
        try:
            if variable == "SSL_CERT_DIR" and not path.is_dir():
                raise SettingsError(f"{variable}: {name!r} is not a folder: name one of hashed CA certificates")
            if variable == "SSL_CERT_FILE":
                ssl.create_default_context(cafile=name)
        except (OSError, ValueError) as error:  # a file without certificates is an SSLError, which is an OSError
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise SettingsError(f"{variable}: {name!r} has no CA certificates in PEM ({reason})") from None


def check_proxies() -> None:
    """Looks at the proxies that the environment names for what is beyond this machine.

    Raises:
        SettingsError: one cannot be used.
    """
    if reason := why_unusable():
        raise SettingsError(reason)


@functools.cache
def _tls_context(_file: str | None, _folder: str | None) -> ssl.SSLContext:
    return httpx2.create_ssl_context()


def client_tls(certificate: Path, key: Path) -> Tls:
    """TLS that shows a client certificate, from two files in PEM. They are read again when they change.

    It is always the same context, since a client keeps the one that it was made with.

    Raises:
        WrongFile: a file cannot be used, or the key is not the certificate's. Later that is logged and changes nothing.
    """
    from recording.channel.certificates import check_pair  # only with a certificate: it takes long to load

    context = httpx2.create_ssl_context()

    def load(contents: Sequence[bytes]) -> ssl.SSLContext:
        check_pair(certificate, contents[0], key, contents[1])
        with _in_memory(contents[0]) as shown, _in_memory(contents[1]) as secret:
            try:
                context.load_cert_chain(shown, secret, password="")  # it would ask a terminal for one
            except ssl.SSLError as error:
                raise WrongFile(certificate, f"is not taken by OpenSSL ({error.reason})") from None
        return context

    return Watched([certificate, key], load).current


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """The path of a file that nobody else can change. OpenSSL reads files alone."""
    with os.fdopen(os.memfd_create("pem"), "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


def name_of(error: BaseException) -> str:
    """The type of a connection's error, and OpenSSL's name for what is wrong; no words of a server."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    reason = getattr(cause, "reason", None) or ""
    hint = ": it asks for a client certificate" if reason.endswith("CERTIFICATE_REQUIRED") else ""
    return f"{type(error).__name__} ({reason}{hint})" if reason else type(error).__name__


class BoundedStream(httpcore2.AsyncNetworkStream):
    """A connection that gives up on a server which sends more than HEAD ahead of its response.

    httpcore2 bounds each head, but passes over informational responses without an end.
    """

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream
        self._head_bytes: int | None = None
        """What has come ahead of the response; None behind its head."""

    def take_head(self) -> None:
        """Says that the head of the response has come."""
        self._head_bytes = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore2's own
        if self._head_bytes is None:
            return await self._stream.read(max_bytes, timeout)
        data = await self._stream.read(min(max_bytes, _READ_BYTES), timeout)
        self._head_bytes += len(data)
        if self._head_bytes > HEAD.limit:
            raise httpcore2.RemoteProtocolError(f"more than {HEAD.limit:,} {HEAD.of}")
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore2's own
        """See AsyncNetworkStream. A request is written: what comes then is ahead of its response."""
        if self._head_bytes is None:
            self._head_bytes = 0
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore2's own
    ) -> httpcore2.AsyncNetworkStream:
        return BoundedStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _BoundedBackend(httpcore2.AsyncNetworkBackend):
    def __init__(self) -> None:
        self._backend = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore2's own
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        return BoundedStream(await self._backend.connect_tcp(host, port, timeout, local_address, socket_options))

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


def bound_heads(client: httpx2.AsyncClient) -> httpx2.AsyncClient:
    """Bounds what may come ahead of each response. httpx2 has no option for it, so this reaches for its pools."""
    for transport in (client._transport, *client._mounts.values()):
        if isinstance(transport, httpx2.AsyncHTTPTransport):
            bound_head(transport)
    return client


def bound_head(transport: httpx2.AsyncHTTPTransport) -> httpx2.AsyncHTTPTransport:
    """The same for one transport."""
    transport._pool._network_backend = _BoundedBackend()
    return transport


def take_head(response: httpx2.Response) -> None:
    """Lets the body of a response come without the bound."""
    stream = response.extensions.get("network_stream")
    if isinstance(stream, BoundedStream):
        stream.take_head()


def is_loopback(host: str) -> bool:
    """Whether host is this machine, which is never reached through a proxy."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
