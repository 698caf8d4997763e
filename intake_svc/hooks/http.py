"""Hooks over HTTP: POST /hooks/AGENT with one event as JSON, by `onrecord-hook` or by the agent itself."""

import json
from collections.abc import Awaitable, Callable
from functools import partial

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from intake_svc.door import Door
from intake_svc.errors import Unsupported
from intake_svc.hooks.client import EVENT_ID, PLACE
from intake_svc.hooks.service import MAX_LOST, Hooks
from intake_svc.hooks.tables import TABLES
from intake_svc.metrics import DoorMetrics
from intake_svc.otlp_http import JSON, http_code, read_body
from intake_svc.signals import LOGS
from service_kit.access.guard import Guard

log = structlog.get_logger(__name__)


class HookRoutes:
    """The routes."""

    def __init__(self, door: Door, hooks: Hooks, guard: Guard, metrics: DoorMetrics, max_bytes: int) -> None:
        """max_bytes: of one body."""
        self._door = door
        self._hooks = hooks
        self._guard = guard
        self._metrics = metrics
        self._max_bytes = max_bytes
        answers = {agent: partial(self._event, agent) for agent in TABLES} | {"kept": self._kept}
        self.routes = [
            Route(f"/hooks/{name}", partial(self._answer, answer), methods=["POST"]) for name, answer in answers.items()
        ]

    async def _answer(self, answer: Callable[[Request, bytes], Awaitable[Response]], request: Request) -> Response:
        peer = request.client.host if request.client else ""
        try:
            # of the same callers as the exports of the same agents
            with self._guard.entering(LOGS.method, request.headers.getlist("authorization"), peer):
                kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
                if kind != JSON:  # which no page in a browser can send unasked
                    raise Unsupported(f"Content-Type must be {JSON}")
                with self._door.holding(0) as hold:
                    response = await answer(request, await read_body(request, hold, self._max_bytes))
        except ClientDisconnect:
            response = Response(status_code=400)  # which nobody hears
        except Exception as error:  # noqa: BLE001 - whatever is raised has a status
            code, told = http_code(error, LOGS.method)
            log.info("hooks.refused", code=code, error=type(error).__name__)
            response = Response(json.dumps({"error": told}), code, media_type=JSON)
        self._metrics.count_http("hooks", response.status_code)
        return response

    async def _event(self, agent: str, request: Request, body: bytes) -> Response:
        told = request.headers.get("onrecord-rules-bytes", "")
        size = min(int(told), len(body)) if told.isdecimal() and len(told) < 10 else 0
        is_strict = request.headers.get("onrecord-mode") == "strict"
        name = request.query_params.get("event", "")
        repository, branch = (request.headers.get(header, "") for header in PLACE)
        place, id_ = (repository, branch), request.headers.get(EVENT_ID, "")
        said = await self._hooks.take(agent, name, body[size:], body[:size], place, id_, is_strict=is_strict)
        return Response(status_code=204) if said is None else Response(json.dumps(said), media_type=JSON)

    async def _kept(self, request: Request, body: bytes) -> Response:
        lost = request.query_params.get("lost", "")
        await self._hooks.take_kept(body, min(int(lost), MAX_LOST) if lost.isdecimal() and len(lost) < 10 else 0)
        return Response(status_code=204)
