"""Whether an engine can be reached: a gateway without any has nothing to run turns on."""

import asyncio
import shlex
import shutil
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import httpx2

from gateway_svc.engines.wire.http import is_loopback

_CONNECT_SECONDS = 3.0
_AWAY = (502, 503, 504)


class EngineCheck:
    """Asks the model servers for nothing: any answer but a gateway's "away" shows that one is there. It costs nothing,
    since it carries no key and names no model.
    """

    def __init__(self, urls: Mapping[str, str], command: str | None) -> None:
        """`urls` are those of the HTTP engines by their names; `command` is Claude's, where it is configured."""
        self._urls = {name: httpx2.URL(url).copy_with(userinfo=b"") for name, url in urls.items()}
        self._command = shlex.split(command)[0] if command else None
        timeout = httpx2.Timeout(_CONNECT_SECONDS)
        self._direct = httpx2.AsyncClient(timeout=timeout, trust_env=False)
        self._proxied = httpx2.AsyncClient(timeout=timeout)

    async def __call__(self) -> str:
        """Why there is no engine; empty when there is one."""
        if self._command and shutil.which(self._command):
            return ""
        reasons = await asyncio.gather(*(self._ask(name, url) for name, url in self._urls.items()))
        if "" in reasons:
            return ""
        missing = [f"claude: there is no program {self._command}"] if self._command else []
        return "; ".join([*reasons, *missing])

    async def _ask(self, name: str, url: httpx2.URL) -> str:
        client = self._direct if is_loopback(url.host) else self._proxied
        try:
            async with client.stream("GET", url) as response:
                return f"{name}: HTTP {response.status_code}" if response.status_code in _AWAY else ""
        except httpx2.HTTPError as error:
            return f"{name}: {type(error).__name__}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._direct.aclose()
        await self._proxied.aclose()
