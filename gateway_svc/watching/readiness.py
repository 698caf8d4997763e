"""Whether an engine can be reached and the state directory be written: without that a gateway cannot run turns."""

import asyncio
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2

from gateway_svc.engines.kinds import EngineSettings
from gateway_svc.http_client import CONNECTION_ERRORS, Tls, bound_heads, is_loopback, name_of, tls_context
from service_kit.proxies import by_proxy

_CONNECT_SECONDS = 3.0
_AWAY = (502, 503, 504)


class EngineCheck:
    """Sends model servers a request without key or model, which costs nothing: any answer except a proxy's
    "unavailable" shows that the server is up.
    """

    def __init__(self, engines: Mapping[str, EngineSettings]) -> None:
        """`engines` are the settings of the configured engines by their names."""
        self._engines = engines
        self._clients: dict[tuple[ssl.SSLContext, bool], httpx2.AsyncClient] = {}
        """By what they trust and show, and whether they use a proxy."""

    async def __call__(self) -> str:
        """Why no engine can be reached; empty if one can."""
        reasons = await asyncio.gather(*(engine.probe(self._ask) for engine in self._engines.values()))
        if "" in reasons:
            return ""
        return "; ".join(f"{name}: {reason}" for name, reason in zip(self._engines, reasons, strict=True))

    async def _ask(self, address: str, tls: Tls = tls_context) -> str:
        url = httpx2.URL(address).copy_with(userinfo=b"")
        client = self._client(tls(), proxied=not is_loopback(url.host))
        try:
            async with client.stream("GET", url) as response:
                return f"HTTP {response.status_code}" if response.status_code in _AWAY else ""
        except CONNECTION_ERRORS as error:
            return name_of(error) + ("" if is_loopback(url.host) else by_proxy(url))

    def _client(self, context: ssl.SSLContext, *, proxied: bool) -> httpx2.AsyncClient:
        if (key := (context, proxied)) not in self._clients:
            timeout = httpx2.Timeout(_CONNECT_SECONDS)
            client = httpx2.AsyncClient(timeout=timeout, trust_env=proxied, verify=context)
            self._clients[key] = bound_heads(client)
        return self._clients[key]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        for client in self._clients.values():
            await client.aclose()


def why_not_writable(*folders: Path) -> str:
    """Why a file with some content cannot be made in one of folders; empty if it can in each."""
    for folder in folders:
        try:
            with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
                file.write(bytes(4096))
        except OSError as error:
            return f"{folder.name} in the state directory cannot be written: {error.strerror}"
    return ""
