"""The HTTP side of an engine: one pool of connections, tries, and the one place where the HTTP library's errors end."""

import asyncio
import itertools
import json
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Protocol

import httpx2
import structlog

from gateway_svc.engines import StepEvent, StepResult, TextDelta
from gateway_svc.engines.wire.clients import Clients
from gateway_svc.engines.wire.failures import Told, kind_of, may_pass, presentable, retry_after_s, told_by, told_by_body
from gateway_svc.engines.wire.fields import Fields, fields
from gateway_svc.engines.wire.streams import Decoder, PayloadTooLong
from gateway_svc.errors import EngineBrokeOff, EngineError, EngineProtocolError, EngineUnavailable

_DONE = b"[DONE]"
_DRAIN_S = 0.5
_MAX_ERROR_BODY_BYTES = 64 * 1024
_MAX_WAIT_S = 8.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How often an engine tries, and how long it waits."""

    attempts: int = 4
    """Requests at most for one step."""
    wait_s: float = 0.5
    """Before the second try; doubled for each further one, up to 8 s, and jittered."""
    max_retry_after_s: float = 60.0
    """A server that asks for a longer wait is not asked again."""
    connect_s: float = 5.0
    read_s: float = 600.0
    """Between two reads: a model may think for minutes before its first token."""


PATIENCE = Patience()


class Answer(Protocol):
    """Puts the pieces of one streamed answer together."""

    complete: bool
    """Whether it would be whole if the stream ended here."""
    ended: bool
    """Whether the server has said that nothing more comes."""

    def take(self, chunk: Fields) -> str:
        """Takes a piece and returns the text in it. Raises ValueError where it is none."""
        ...

    def result(self, model: str) -> StepResult:
        """The whole answer; model is the one that was asked."""
        ...


class _TryAgain(Exception):
    """A failure that may pass. `error` is what the caller is told if it does not."""

    def __init__(self, error: EngineError, after_s: float | None = None) -> None:
        super().__init__(error)
        self.error = error
        self.after_s = after_s


class ModelServerClient:
    """Asks one model server for steps."""

    def __init__(
        self, engine: str, base_url: str, path: str, *, patience: Patience, api_key: str | None = None
    ) -> None:
        """`path` is put behind the path of base_url. `api_key` is sent as a bearer token."""
        url = httpx2.URL(base_url)
        self._engine = engine
        self._patience = patience
        self._secrets = [secret for secret in (api_key, url.password) if secret]
        self._url = url.copy_with(path=url.path.rstrip("/") + path, userinfo=b"")
        self._origin = f"{url.scheme}://{url.netloc.decode('ascii')}"
        # a container may reach the model server only through a proxy, and is told so by HTTPS_PROXY, NO_PROXY and
        # SSL_CERT_FILE; but no proxy reaches what runs on this machine
        trust_env = not is_loopback(url.host)
        verify = httpx2.create_ssl_context(trust_env=trust_env)
        self._clients = Clients(
            lambda: httpx2.AsyncClient(
                auth=httpx2.BasicAuth(url.username, url.password) if url.userinfo else None,
                headers={
                    "content-type": "application/json",
                    # a compressor on the way would hold tokens back
                    "accept-encoding": "identity",
                    "user-agent": "onrecord",
                    **({"authorization": f"Bearer {api_key}"} if api_key else {}),
                },
                timeout=httpx2.Timeout(patience.read_s, connect=patience.connect_s, pool=None),
                # how many turns run at once is limited where turns are
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=30.0),
                trust_env=trust_env,
                verify=verify,
            )
        )

    async def step(
        self, model: str, body: bytes, decoder: Callable[[str], Decoder], answer: Callable[[], Answer]
    ) -> AsyncGenerator[StepEvent, None]:
        """Posts body and streams the answer as Engine.step says.

        `decoder` makes a decoder for a content type, `answer` an empty answer; each try has its own.
        """
        begun = False
        for attempt in itertools.count(1):
            try:
                async with aclosing(self._try(model, body, decoder, answer())) as events:
                    async for event in events:
                        begun = True
                        yield event
                return
            except _TryAgain as failure:
                wait_s = None if begun else self._wait_s(attempt, failure.after_s)
                if wait_s is None:
                    raise failure.error from failure.__cause__
                status = failure.error.http_status
                log.info("engine.trying_again", engine=self._engine, model=model, http_status=status, wait_s=wait_s)
            await asyncio.sleep(wait_s)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._clients.aclose()

    def _wait_s(self, attempt: int, asked_s: float | None) -> float | None:
        if attempt >= self._patience.attempts or (asked_s or 0) > self._patience.max_retry_after_s:
            return None
        jitter = random.random()  # noqa: S311 - it spreads clients, and guards nothing
        if asked_s is not None:
            return asked_s * (1 + jitter / 10)
        return min(self._patience.wait_s * 2.0 ** (attempt - 1), _MAX_WAIT_S) * (1 + jitter) / 2

    async def _try(
        self, model: str, body: bytes, decoder: Callable[[str], Decoder], answer: Answer
    ) -> AsyncGenerator[StepEvent, None]:
        async with aclosing(self._payloads(model, body, decoder)) as payloads:
            async for payload in payloads:
                if payload == _DONE:
                    answer.complete = answer.ended = True
                elif text := self._take(model, payload, answer):
                    yield TextDelta(text)
                if answer.ended:
                    await _drain(payloads)
                    break
        if not answer.complete:
            raise EngineBrokeOff(self._engine, model, "its stream ended before the answer was complete")
        yield answer.result(model)

    def _take(self, model: str, payload: bytes, answer: Answer) -> str:
        try:
            chunk = fields(json.loads(payload.decode()))
            told = told_by(chunk)
            if told is None:
                return answer.take(chunk)
        except (ValueError, RecursionError) as error:
            reason = f"sent what its protocol does not have: {presentable(str(error))}"
            raise EngineProtocolError(self._engine, model, reason) from error
        raise self._broken_off(model, told)

    async def _payloads(
        self, model: str, body: bytes, decoder: Callable[[str], Decoder]
    ) -> AsyncGenerator[bytes, None]:
        with self._clients.lend() as client:
            response = await self._post(client, model, body)
            try:
                if response.status_code != 200:
                    raise await self._refusal(model, response)
                decode = decoder(response.headers.get("content-type", ""))
                async for data in response.aiter_bytes():
                    for payload in decode.feed(data):
                        yield payload
                for payload in decode.flush():
                    yield payload
            except httpx2.ReadTimeout as error:
                reason = f"sent nothing for {self._patience.read_s:g} s in the middle of its answer"
                raise EngineBrokeOff(self._engine, model, reason) from error
            except PayloadTooLong as error:
                reason = f"broke in the middle of its answer: {error}"
                raise EngineProtocolError(self._engine, model, reason) from error
            except httpx2.HTTPError as error:
                reason = f"broke in the middle of its answer: {type(error).__name__}"
                raise EngineBrokeOff(self._engine, model, reason) from error
            finally:
                await response.aclose()

    async def _post(self, client: httpx2.AsyncClient, model: str, body: bytes) -> httpx2.Response:
        """Sends the request and waits for the head of the response. An error's own words can hold the key: left out."""
        try:
            return await client.send(client.build_request("POST", self._url, content=body), stream=True)
        except httpx2.ConnectTimeout as error:
            reason = f"no connection to {self._origin} within {self._patience.connect_s:g} s"
            raise _TryAgain(EngineUnavailable(self._engine, model, reason)) from error
        except httpx2.ConnectError as error:
            reason = f"no connection to {self._origin}: {presentable(str(error))}"
            raise _TryAgain(EngineUnavailable(self._engine, model, reason)) from error
        except httpx2.ReadTimeout as error:
            reason = f"no answer from {self._origin} within {self._patience.read_s:g} s"
            raise EngineUnavailable(self._engine, model, reason) from error
        except (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.InvalidURL) as error:
            reason = f"the request to {self._origin} cannot be sent: {type(error).__name__}"
            raise EngineUnavailable(self._engine, model, reason) from error
        except httpx2.HTTPError as error:
            reason = f"the connection to {self._origin} broke before an answer: {type(error).__name__}"
            raise _TryAgain(EngineUnavailable(self._engine, model, reason)) from error

    async def _refusal(self, model: str, response: httpx2.Response) -> Exception:
        status, body = response.status_code, b""
        with suppress(httpx2.HTTPError):
            async for data in response.aiter_bytes():
                body += data
                if len(body) > _MAX_ERROR_BODY_BYTES:
                    break
        told = told_by_body(body, response.headers.get("content-type", ""))
        if 300 <= status < 400:
            told = Told(f"look at {response.headers.get('location', 'another address')}")
        error = kind_of(status, told)(self._engine, model, self._words(told), status)
        return _TryAgain(error, retry_after_s(response.headers)) if may_pass(status, told) else error

    def _broken_off(self, model: str, told: Told) -> Exception:
        """The error of a server that tells it in the stream of an answer which began with 200."""
        if told.status is None:
            return EngineBrokeOff(self._engine, model, f"broke off its answer {self._words(told)}")
        kind = kind_of(told.status, told) if told.status < 500 else EngineBrokeOff
        error = kind(self._engine, model, f"broke off its answer with status {told.status} {self._words(told)}")
        return _TryAgain(error) if may_pass(told.status, told) else error

    def _words(self, told: Told) -> str:
        text = told.text
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return f"and says: {presentable(text)}" if text.strip() else "without saying why"


async def _drain(payloads: AsyncGenerator[bytes, None]) -> None:
    """Reads what follows the end of an answer, so that its connection serves the next step too.

    Usually it is there already. A server that keeps its stream open loses the connection, and no longer matters.
    """
    with suppress(EngineError, TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in payloads:
                pass


def is_loopback(host: str) -> bool:
    """Whether host is this machine, which no proxy reaches."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
