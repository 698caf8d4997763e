"""Access to the pages: by their own address alone, with the token, and a change only from a form of theirs."""

import hashlib
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
CSRF = "csrf"
"""The field of each form that says that the form is ours."""
TOKEN = "token"  # noqa: S105
"""The field of an address that has the token."""
FORM = "onrecord.form"
"""Where the scope of a POST has its fields."""
MAX_FORM_BYTES = 32_768
MAX_FIELDS = 32

# Nothing is loaded from other sites, no code or style stands in a page, and no other page can embed these or learn
# their addresses.
_HEADERS = (
    (b"content-security-policy", b"default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
     b"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)  # fmt: skip

_ELSEWHERE = "this is not an address of these pages: open the one that audit-svc ui has printed\n"
_NO_FORM = "this did not come from a form of these pages: open the page again, and send it there\n"
# A browser does not send the cookie with a link from elsewhere, and does with one of this page.
_REFUSED = (
    '<!doctype html><html lang="en"><title>onrecord</title><h1>Not let in</h1><p>Open the address that audit-svc ui '
    'has printed, or show its token as a bearer.</p><p>If this browser was let in, <a href="">go on</a>.</p></html>'
    "\n"
)


def new_token() -> str:
    """A token that cannot be guessed."""
    return secrets.token_urlsafe(24)


def csrf_of(token: str) -> str:
    """What forms carry: it tells nothing of the token, and cannot be made without it."""
    return hmac.new(token.encode(), b"a form of these pages", hashlib.sha256).hexdigest()


class Guard:
    """Admits requests to our hosts with the token: as a bearer, as the cookie, or once as ?token=, which sets the
    cookie.

    GET and HEAD change nothing. A POST must come from a form of these pages: it has their CSRF field, and no browser
    says that another site sent it. Any other method is refused.
    """

    def __init__(self, app: App, token: str) -> None:
        """Lets nobody in until hosts says under which names."""
        self._app, self._token, self._csrf = app, token, csrf_of(token)
        self.hosts: frozenset[str] = frozenset()
        """Under which names browsers come, "host:port" in lower case."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            return
        headers = [(name, value.decode("latin-1")) for name, value in scope["headers"]]
        if not self._is_ours([value for name, value in headers if name == b"host"]):
            await _answer(send, 421, _ELSEWHERE)
            return
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        shown = [value for name, value in query if name == TOKEN]
        if scope["method"] in {"GET", "HEAD"} and shown and self._is_right(shown):
            rest = urlencode([entry for entry in query if entry[0] != TOKEN])
            path = scope.get("raw_path") or scope["path"].encode("ascii", "ignore")
            cookie = f"{COOKIE}={self._token}; HttpOnly; SameSite=Strict; Path=/"
            await _answer(send, 303, "", [(b"location", _within_site(path, rest)), (b"set-cookie", cookie.encode())])
        elif not self._is_right(_shown_in(headers)):
            await _answer(send, 403, _REFUSED, kind=b"text/html")
        elif scope["method"] in {"GET", "HEAD"}:
            await self._app(scope, receive, _with_headers(send))
        elif scope["method"] == "POST":
            await self._post(scope, headers, receive, send)
        else:
            await _answer(send, 405, "only GET, HEAD and POST are answered\n", [(b"allow", b"GET, HEAD, POST")])

    def _is_ours(self, hosts: list[str]) -> bool:
        return len(hosts) == 1 and hosts[0].lower() in self.hosts

    def _is_right(self, tokens: Iterable[str]) -> bool:
        return any(hmac.compare_digest(token.encode(), self._token.encode()) for token in tokens)

    async def _post(self, scope: Scope, headers: list[tuple[bytes, str]], receive: Receive, send: Send) -> None:
        sites = {value for name, value in headers if name == b"sec-fetch-site"}
        fields = await _fields(receive)
        if fields is None:
            await _answer(send, 413, "this is more than a form of these pages holds\n")
        elif sites - {"same-origin"} or not hmac.compare_digest(fields.get(CSRF, "").encode(), self._csrf.encode()):
            await _answer(send, 403, _NO_FORM)
        else:
            await self._app({**scope, FORM: fields}, receive, _with_headers(send))


async def _fields(receive: Receive) -> dict[str, str] | None:
    """The fields of a form; None where there are too many bytes or fields."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_FORM_BYTES:
            return None
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            break
    try:
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        return None


def _within_site(path: bytes, query: str) -> bytes:
    # Two slashes would lead to another host.
    return b"/" + path.partition(b"?")[0].lstrip(b"/\\") + (f"?{query}".encode() if query else b"")


def _shown_in(headers: Iterable[tuple[bytes, str]]) -> list[str]:
    tokens = []
    for name, text in headers:
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


async def _answer(
    send: Send, status: int, text: str, headers: Iterable[tuple[bytes, bytes]] = (), kind: bytes = b"text/plain"
) -> None:
    sending = _with_headers(send)
    content = (b"content-type", kind + b"; charset=utf-8")
    await sending({"type": "http.response.start", "status": status, "headers": [content, *headers]})
    await sending({"type": "http.response.body", "body": text.encode()})
