"""The HTTP proxies that the environment names."""

import os
from urllib.request import getproxies, proxy_bypass

import httpx2

from service_kit.settings import without_secrets


def why_unusable() -> str:
    """Which variable names a proxy that cannot be used, why, and what to do; empty if there is none.

    httpx2 reads all of them for each client that may use one, and raises ImportError or ValueError.
    """
    proxies = getproxies()
    for kind in ("http", "https", "all"):
        if not (value := proxies.get(kind)):
            continue
        told = f"{_variable(kind, value)}: {without_secrets(value)!r}"
        try:
            url = httpx2.URL(value if "://" in value else f"http://{value}")
        except httpx2.InvalidURL:  # whose message may show a part of a password
            return f"{told} is not a URL: give http://host:port"
        if url.scheme not in ("http", "https"):
            return f"{told} is not an HTTP proxy, and other kinds are not supported: give http://host:port, or unset it"
        if not url.host or " " in url.host or (url.port is not None and not 0 < url.port <= 65535):
            return f"{told} names no host and port: give http://host:port"
    return ""


def by_proxy(url: httpx2.URL) -> str:
    """Words for a sentence on a request to url: the proxy that it takes, and which variable names it; else empty."""
    proxies = getproxies()
    kind = next((kind for kind in (url.scheme, "all") if proxies.get(kind)), "")
    if not kind or proxy_bypass(url.host):
        return ""
    return f" by the proxy {without_secrets(proxies[kind])} ({_variable(kind, proxies[kind])})"


def _variable(kind: str, value: str) -> str:
    """The variable that names a proxy, in small or large letters."""
    names = (name for name, given in os.environ.items() if name.lower() == f"{kind}_proxy" and given == value)
    return min(names, default=f"{kind.upper()}_PROXY")
