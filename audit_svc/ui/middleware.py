"""Access to the pages: read-only, and only with the token."""

import hmac
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "onrecord_ui"

# Nothing is loaded from other sites, and no other page can embed these pages or learn their addresses.
_HEADERS = (
    (b"content-security-policy", b"default-src 'self'; style-src 'self' 'unsafe-inline'; "
     b"script-src 'self' 'unsafe-inline'; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
)  # fmt: skip


def new_token() -> str:
    """A token that cannot be guessed."""
    return secrets.token_urlsafe(24)


class TokenMiddleware:
    """Admits requests with the token: as a bearer, as the cookie, or once as ?token=, which sets the cookie.

    Any method but GET and HEAD is refused before Datasette sees it.
    """

    def __init__(self, app: App, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http" or scope["method"] not in {"GET", "HEAD"}:
            await _answer(send, 405, "the ledger is read here, and not changed\n")
            return
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        shown = [value for name, value in query if name == "token"]
        if shown and self._is_right(shown):
            rest = urlencode([entry for entry in query if entry[0] != "token"])
            path = scope.get("raw_path", scope["path"].encode("ascii", "ignore"))
            cookie = f"{COOKIE}={self._token}; HttpOnly; SameSite=Strict; Path=/"
            headers = [(b"location", _within_site(path, rest)), (b"set-cookie", cookie.encode())]
            await _answer(send, 303, "", headers)
        elif self._is_right(_shown_in_headers(scope["headers"])):
            await self._app(scope, receive, _with_headers(send))
        else:
            await _answer(send, 403, "open the address that audit-svc ui has printed, or show its token as a bearer\n")

    def _is_right(self, tokens: Iterable[str]) -> bool:
        return any(hmac.compare_digest(token.encode(), self._token.encode()) for token in tokens)


def _within_site(path: bytes, query: str) -> bytes:
    # Two slashes would lead to another host.
    return b"/" + path.partition(b"?")[0].lstrip(b"/\\") + (f"?{query}".encode() if query else b"")


def _shown_in_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    tokens = []
    for name, value in headers:
        text = value.decode("latin-1")
        if name == b"authorization" and text[:7].lower() == "bearer ":
            tokens.append(text[7:].strip())
        elif name == b"cookie":
            try:
                cookies = SimpleCookie(text)
            except CookieError:
                continue
            if COOKIE in cookies:
                tokens.append(cookies[COOKIE].value)
    return tokens


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            ours = {name for name, _ in _HEADERS}
            kept = [entry for entry in message.get("headers", []) if entry[0].lower() not in ours]
            message = {**message, "headers": [*kept, *_HEADERS]}
        await send(message)

    return sending


async def _answer(send: Send, status: int, text: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    plain = (b"content-type", b"text/plain; charset=utf-8")
    sending = _with_headers(send)
    await sending({"type": "http.response.start", "status": status, "headers": [plain, *headers]})
    await sending({"type": "http.response.body", "body": text.encode()})
