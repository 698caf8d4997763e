"""The HTTP side of an engine: one pool of connections, tries, and the one place where the HTTP library's errors end."""

import asyncio
import itertools
import json
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any

import httpx2
import structlog

from gateway_svc.engines import StepEvent, TextDelta
from gateway_svc.engines.http1 import transport as http1
from gateway_svc.engines.wire.answer import Answer, BadEnd
from gateway_svc.engines.wire.clients import IDLE_SECONDS, Clients
from gateway_svc.engines.wire.failures import (
    ReportedError,
    class_within,
    error_class,
    error_in,
    error_in_body,
    is_passing,
    presentable,
    retry_after_s,
)
from gateway_svc.engines.wire.fields import fields
from gateway_svc.engines.wire.offers import offered
from gateway_svc.engines.wire.patience import Patience, TransientFailure
from gateway_svc.engines.wire.streams import AnswerDecoder, UnexpectedPage
from gateway_svc.engines.wire.unpacking import UnknownEncoding, unpacked
from gateway_svc.errors import (
    AnswerTooLarge,
    EngineBrokeOff,
    EngineError,
    EngineProtocolError,
    EngineUnavailable,
    ModelNotFound,
)
from gateway_svc.http_client import CONNECTION_ERRORS, Tls, check_proxies, is_loopback, name_of, take_head, tls_context
from service_kit.bounds import AFTER_END_BYTES, EVENTS, PIECES, RESPONSE, TEXT, Exceeded, check_json
from service_kit.proxies import by_proxy
from service_kit.time_slice import TimeSlice

_DONE = b"[DONE]"
_SHORT_BYTES = 32
_JSON_SIGNS = re.compile(rb"[{}:,]")
_DRAIN_S = 0.5
_AFTERWARDS_S = 5.0
"""How long to wait for what may follow a complete answer, such as its usage."""
_MASKED_ANYWHERE_CHARACTERS = 12
"""A shorter secret is masked only as a whole word, since it may be part of many words."""
_MAX_ERROR_BODY_BYTES = 64 * 1024
_ERROR_BODY_S = 10.0
"""How long to wait for the body of an error; its status says enough."""

log = structlog.get_logger(__name__)


class ModelServerClient:
    """Asks one model server for steps."""

    def __init__(
        self,
        engine: str,
        base_url: str,
        path: str,
        *,
        patience: Patience,
        models: str = "",
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        tls: Tls = tls_context,
    ) -> None:
        """`path` is appended to base_url's; so is `models`, where the server lists its models, if it does. `api_key` is
        sent as a bearer token unless `headers` are given.

        Raises:
            SettingsError: the environment names a proxy that cannot be used.
        """
        url = httpx2.URL(base_url)
        given = {"authorization": f"Bearer {api_key}"} if api_key and headers is None else dict(headers or {})
        self._engine = engine
        self._patience = patience
        self._tls = tls
        self._secrets = [secret for secret in (api_key, url.password) if secret]
        self._url = url.copy_with(path=url.path.rstrip("/") + path, userinfo=b"")
        self._models = url.copy_with(path=url.path.rstrip("/") + models, userinfo=b"") if models else None
        self._origin = f"{url.scheme}://{url.netloc.decode('ascii')}"
        self.address = f"{self._origin}{url.path.rstrip('/')}"
        """The server's address. What a server sent goes back only to the same address."""
        # a container may need a proxy (HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE) to reach the model server; but no proxy
        # reaches this machine
        if trust_env := not is_loopback(url.host):
            check_proxies()
        self._like: httpx2.Request | None = None
        """What requests have in common: to build one takes a fiftieth of a step."""
        self._clients = Clients(
            lambda: http1.mount(
                httpx2.AsyncClient(
                    auth=httpx2.BasicAuth(url.username, url.password) if url.userinfo else None,
                    headers={
                        "content-type": "application/json",
                        # compression on the way would delay tokens
                        "accept-encoding": "identity",
                        "user-agent": "onrecord",
                        **given,
                    },
                    timeout=httpx2.Timeout(patience.read_s, connect=patience.connect_s, pool=None),
                    # concurrency is limited by the number of turns
                    limits=httpx2.Limits(
                        max_connections=None, max_keepalive_connections=None, keepalive_expiry=IDLE_SECONDS
                    ),
                    trust_env=trust_env,
                    verify=tls(),
                ),
                tls(),
                IDLE_SECONDS,
            )
        )

    async def step(self, model: str, body: bytes, answer: Callable[[], Answer]) -> AsyncGenerator[StepEvent, None]:
        """Posts body and streams the answer, as Engine.step() specifies. `answer` makes an empty one for each try."""
        begun, started = False, time.monotonic()
        for attempt in itertools.count(1):
            try:
                async with aclosing(self._try(model, body, answer())) as events:
                    async for event in events:
                        begun = True
                        yield event
                return
            except TransientFailure as failure:
                wait_s = None if begun else self._patience.pause_s(attempt, failure, time.monotonic() - started)
                if wait_s is None:
                    raise failure.error from failure.__cause__
                status = failure.error.http_status
                log.info("engine.trying_again", engine=self._engine, model=model, http_status=status, wait_s=wait_s)
            await asyncio.sleep(wait_s)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._clients.aclose()

    async def _try(self, model: str, body: bytes, answer: Answer) -> AsyncGenerator[StepEvent, None]:
        try:
            async with aclosing(self._payloads(model, body, answer)) as payloads:
                async for payload in payloads:
                    if text := self._take(model, payload, answer):
                        yield TextDelta(text)
                    if answer.complete or answer.is_waited_for:
                        break
                while not answer.ended and (rest := await _next(payloads)) is not None:
                    if text := self._take(model, rest, answer):
                        yield TextDelta(text)
                if answer.ended:
                    await _drain(payloads, answer)
            if not answer.complete:
                raise EngineBrokeOff(self._engine, model, answer.why_incomplete)
        except (EngineError, TransientFailure, TimeoutError) as failure:
            if isinstance(failure, TimeoutError):
                failure = EngineBrokeOff(self._engine, model, answer.why_incomplete)
            if not answer.complete or isinstance(failure, AnswerTooLarge):
                # step() retries only if no text has been passed on
                silent = isinstance(failure.__cause__, httpx2.ReadTimeout)
                if isinstance(failure, EngineBrokeOff) and not silent:
                    raise TransientFailure(failure) from failure.__cause__
                raise
            log.warning("engine.broke_after_its_answer", engine=self._engine, model=model, error=type(failure).__name__)
        try:
            result = answer.result(model)
        except BadEnd as end:
            raise TransientFailure(end.kind(self._engine, model, str(end))) from None
        except Exceeded as over:
            raise self._too_large(model, over) from None
        except ValueError as error:
            raise self._unreadable(model, error) from error
        yield result

    def _take(self, model: str, payload: bytes, answer: Answer) -> str:
        if len(payload) < _SHORT_BYTES and (word := payload.strip().strip(b'"')) and not _JSON_SIGNS.search(word):
            if word.upper() == _DONE:
                answer.done()
            return ""  # a ping in words
        try:
            answer.tally.add(EVENTS)
            chunk = _read(payload)
            reported = error_in(chunk)
            if reported is None:
                if isinstance(chunk, list):  # some proxies send all chunks as one array
                    text = "".join([answer.take(fields(part)) for part in chunk])
                else:
                    text = answer.take(fields(chunk))
                answer.tally.add(TEXT, len(text))
                return text
        except BadEnd as end:
            raise TransientFailure(end.kind(self._engine, model, str(end))) from None
        except Exceeded as over:
            raise self._too_large(model, over) from None
        except (ValueError, RecursionError) as error:
            raise self._unreadable(model, error) from error
        raise self._broken_off(model, reported)

    def _too_large(self, model: str, over: Exceeded) -> AnswerTooLarge:
        """Not retried: it would cost as much again."""
        return AnswerTooLarge(self._engine, model, f"sent {over}", over.bound.name)

    def _unreadable(self, model: str, error: Exception) -> Exception:
        reason = f"sent what its protocol does not have: {presentable(str(error))}"
        return TransientFailure(EngineProtocolError(self._engine, model, reason))

    async def _payloads(self, model: str, body: bytes, answer: Answer) -> AsyncGenerator[bytes, None]:
        self._tls()  # files that have changed are read before a connection is made
        with self._clients.lend() as client:
            response = await self._post(client, model, body)
            try:
                take_head(response)
                if response.status_code != 200:
                    raise await self._refusal(client, model, response)
                decode, left, time_slice = AnswerDecoder(), AFTER_END_BYTES, TimeSlice()
                async for data in time_slice.each(unpacked(response)):
                    answer.tally.add(PIECES)
                    answer.tally.add(RESPONSE, len(data))
                    if answer.ended and (left := left - len(data)) < 0:
                        return
                    for payload in decode.feed(data):
                        yield payload
                        if time_slice.is_over():
                            await time_slice.give_way()
                for payload in decode.flush():
                    yield payload
            except httpx2.ReadTimeout as error:
                reason = f"sent nothing for {self._patience.read_s:g} s in the middle of its answer"
                raise EngineBrokeOff(self._engine, model, reason) from error
            except UnexpectedPage as error:
                reason = f"sent a page instead of an answer: look at GATEWAY_{self._engine.upper()}_URL"
                raise EngineProtocolError(self._engine, model, reason) from error
            except UnknownEncoding as error:
                raise EngineProtocolError(self._engine, model, f"sent {error}") from error
            except Exceeded as over:
                raise self._too_large(model, over) from None
            except CONNECTION_ERRORS as error:
                reason = f"broke in the middle of its answer: {name_of(error)}"
                raise EngineBrokeOff(self._engine, model, reason) from error
            finally:
                await response.aclose()

    async def _post(self, client: httpx2.AsyncClient, model: str, body: bytes) -> httpx2.Response:
        """Sends the request and waits for the response's headers. httpx2's own messages may hold the key: left out."""
        try:
            return await client.send(self._request(client, body), stream=True)
        except httpx2.ConnectTimeout as error:
            reason = f"no connection to {self._origin}{self._by_proxy()} within {self._patience.connect_s:g} s"
            raise TransientFailure(EngineUnavailable(self._engine, model, reason)) from error
        except httpx2.ConnectError as error:
            reason = f"no connection to {self._origin}{self._by_proxy()}: {presentable(str(error))}"
            raise TransientFailure(EngineUnavailable(self._engine, model, reason)) from error
        except httpx2.ReadTimeout as error:
            reason = f"no answer from {self._origin} within {self._patience.read_s:g} s"
            raise EngineUnavailable(self._engine, model, reason) from error
        except (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.InvalidURL) as error:
            reason = f"the request to {self._origin} cannot be sent: {type(error).__name__}"
            raise EngineUnavailable(self._engine, model, reason) from error
        except CONNECTION_ERRORS as error:
            reason = f"the connection to {self._origin}{self._by_proxy()} broke before an answer: {name_of(error)}"
            raise TransientFailure(EngineUnavailable(self._engine, model, reason)) from error

    def _by_proxy(self) -> str:
        return "" if is_loopback(self._url.host) else by_proxy(self._url)

    def _request(self, client: httpx2.AsyncClient, body: bytes) -> httpx2.Request:
        """As the client builds it, where it would build the same as before but for the body."""
        if client.cookies:
            return client.build_request("POST", self._url, content=body)
        if self._like is None:
            self._like = client.build_request("POST", self._url, content=b" ")
        headers = self._like.headers.copy()
        headers["Content-Length"] = str(len(body))
        request = httpx2.Request(
            "POST", self._url, headers=headers, stream=httpx2.ByteStream(body), extensions=self._like.extensions
        )
        request.read()
        return request

    async def _refusal(self, client: httpx2.AsyncClient, model: str, response: httpx2.Response) -> Exception:
        status, body = response.status_code, bytearray()
        with suppress(*CONNECTION_ERRORS, UnknownEncoding):
            async with asyncio.timeout(_ERROR_BODY_S):
                async for data in TimeSlice().each(unpacked(response)):
                    body += data
                    if len(body) > _MAX_ERROR_BODY_BYTES:
                        break
        reported = error_in_body(bytes(body), response.headers.get("content-type", ""))
        if 300 <= status < 400:
            reported = ReportedError(f"look at {response.headers.get('location', 'another address')}")
        kind, words = error_class(status, reported), self._words(reported)
        if kind is ModelNotFound and self._models:
            words += await offered(client, self._models, model)
        error = kind(self._engine, model, words, status)
        if not is_passing(status, reported, response.headers.get("x-should-retry", "")):
            return error
        after_s = retry_after_s(response.headers)
        return TransientFailure(
            error, reported.after_s if after_s is None else after_s, is_loading=reported.is_loading(status)
        )

    def _broken_off(self, model: str, reported: ReportedError) -> Exception:
        """The error in the stream of an answer that began with status 200."""
        kind, status = class_within(reported), reported.status
        told = "" if status is None else f"with status {status} "
        error = kind(self._engine, model, f"broke off its answer {told}{self._words(reported)}")
        if not is_passing(status or 400, reported):
            return error
        return TransientFailure(error, reported.after_s, is_loading=reported.is_loading(status or 400))

    def _words(self, reported: ReportedError) -> str:
        text = reported.text
        for secret in self._secrets:
            anywhere = len(secret) >= _MASKED_ANYWHERE_CHARACTERS
            text = re.sub(re.escape(secret) if anywhere else rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
        return f"and says: {presentable(text)}" if text.strip() else "without saying why"


async def _next(payloads: AsyncGenerator[bytes, None]) -> bytes | None:
    """The next payload after a complete answer; None at the end of the stream. Raises TimeoutError."""
    async with asyncio.timeout(_AFTERWARDS_S):
        return await anext(payloads, None)


async def _drain(payloads: AsyncGenerator[bytes, None], answer: Answer) -> None:
    """Reads what follows the end of an answer, so that its connection can be reused for the next step.

    Usually it has already arrived. If the server keeps the stream open, the connection is closed.
    """
    with suppress(EngineError, TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            async for payload in payloads:
                with suppress(ValueError, RecursionError, Exceeded):
                    answer.count(fields(_read(payload)))


def _read(payload: bytes) -> Any:
    """A payload's JSON. Raises ValueError, RecursionError, Exceeded."""
    check_json(payload)
    return json.loads(payload.decode("utf-8", "replace"))
