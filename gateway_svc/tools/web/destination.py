"""Where a fetch may go: parses the URL, resolves its host, and checks every address of it."""

import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address

import httpx2

from gateway_svc.threads import Threads
from gateway_svc.tools import ToolError
from gateway_svc.tools.web.addresses import is_metadata, refusal

MAX_URL_CHARACTERS = 8_192
HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]*:[0-9a-f:.]+")
DEFAULT_PORTS = {"http": 80, "https": 443}

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a host, for a port; none if there is no such host."""


class SystemResolver:
    """The addresses of hosts, as the operating system resolves them: a name server that is silent blocks for long."""

    def __init__(self) -> None:
        self._lookups = Threads("look-ups of names", at_once=64, refusal=ToolError)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """See Resolver."""
        return await self._lookups.run(partial(_addresses_of, host, port))


def _addresses_of(host: str, port: int) -> Sequence[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # no such host, or an impossible name
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True)
class Destination:
    """A URL that may be fetched, and the checked addresses to connect to."""

    url: httpx2.URL
    host: str
    """As the URL names it, in ASCII: for the Host header and the certificate."""
    addresses: tuple[str, ...]


class Destinations:
    """What a deployment allows to be fetched."""

    def __init__(self, *, allow: Sequence[str], ports: Sequence[int], resolver: Resolver) -> None:
        """`allow` lists hosts that may have a private address: `host` (at the usual ports) or `host:port`.

        Raises:
            ValueError: an entry of `allow` is neither.
        """
        self._allow = frozenset(_allowed(entry) for entry in allow)
        self._ports = frozenset(ports)
        self._resolver = resolver

    async def check(self, url: str | httpx2.URL) -> Destination:
        """Resolves the URL's host and checks each of its addresses. One refused address refuses the host.

        Raises:
            ToolError: it may not be fetched, or its host has no address.
        """
        target = _parsed(url)
        host = target.raw_host.decode("ascii").lower().rstrip(".")
        port = DEFAULT_PORTS[target.scheme] if target.port is None else target.port
        allowed_here = (host, port) in self._allow
        if port not in self._ports and not allowed_here:
            ports = ", ".join(str(number) for number in sorted(self._ports))
            raise ToolError(f"the URL's port may not be fetched; the ports that may are {ports}", rule="webfetch_port")
        addresses = await self._addresses(host, port)
        allowed = allowed_here or (host, None) in self._allow
        for address in addresses:
            _refuse(address, host, allowed=allowed)
        return Destination(target, host, addresses)

    async def _addresses(self, host: str, port: int) -> tuple[str, ...]:
        try:
            return (str(ip_address(host)),)
        except ValueError:
            pass
        addresses = tuple(await self._resolver(host, port))
        if not addresses:
            raise ToolError("the URL's host has no address")
        return addresses


def _refuse(address: str, host: str, *, allowed: bool) -> None:
    try:
        parsed = ip_address(address)
    except ValueError:
        raise ToolError("the URL's host has an address of an unknown kind", rule="webfetch_address") from None
    if allowed and (not is_metadata(parsed) or address == host):
        return
    if why := refusal(parsed):
        message = f"the URL's host has an address that may not be fetched: it is {why}"
        raise ToolError(message, rule="webfetch_address")


def _parsed(url: str | httpx2.URL) -> httpx2.URL:
    if len(str(url)) > MAX_URL_CHARACTERS:
        raise ToolError(f"the URL is longer than {MAX_URL_CHARACTERS} characters")
    try:
        parsed = httpx2.URL(url).copy_with(fragment=None)
    except (httpx2.InvalidURL, ValueError):
        raise ToolError("the URL is malformed") from None
    if parsed.scheme not in DEFAULT_PORTS:
        raise ToolError("only http and https URLs can be fetched", rule="webfetch_scheme")
    if not parsed.raw_host.strip(b"."):
        raise ToolError("the URL names no host")
    if parsed.userinfo:
        raise ToolError("the URL holds credentials, which are not sent", rule="webfetch_credentials")
    return parsed


def check_allowed(entries: list[str]) -> list[str]:
    """Returns entries, if each is `host` or `host:port`.

    Raises:
        ValueError: one is neither.
    """
    for entry in entries:
        _allowed(entry)
    return entries


def _allowed(entry: str) -> tuple[str, int | None]:
    host, port = entry.strip().lower().rstrip("."), None
    with suppress(ValueError):
        return str(ip_address(host.strip("[]"))), None
    name, colon, digits = host.rpartition(":")
    if colon:
        host, port = name.strip("[]"), int(digits) if digits.isascii() and digits.isdecimal() else 0
    try:
        ascii_host = httpx2.URL(scheme="http", host=host).raw_host.decode("ascii")
    except (httpx2.InvalidURL, ValueError):
        ascii_host = ""
    if not HOST.fullmatch(ascii_host) or (port is not None and not 0 < port < 65536):
        raise ValueError(f"{entry!r} is neither a host nor host:port")
    return ascii_host, port
