"""The application: which page answers which address, and what is said where one cannot."""

from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

import grpc
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from audit_svc.ui.asked import Asked, WrongAddress
from audit_svc.ui.pages import approvals, health, proof, search, session, sessions, start, usage
from audit_svc.ui.remote import NOT_SEALED, NotAnswered, Remote
from audit_svc.ui.texts import environment
from service_kit.observing.logs import describe_exception

log = structlog.get_logger(__name__)

Page = Callable[[Asked], Awaitable[Response]]

PAGES: dict[str, Page] = {
    "/": start.start,
    "/live": start.live,
    "/sessions": sessions.sessions,
    "/session": session.session,
    "/search": search.search,
    "/usage": usage.show,
    "/approvals": approvals.approvals,
    "/approvals/count": approvals.count,
    "/health": health.health,
    "/proof": proof.proof,
    "/about": start.about,
}
FIELDS: dict[str, Collection[str]] = {
    "/sessions": (*sessions.FIELDS, "page"),
    "/session": ("id", "by", "page"),
    "/search": ("q", "page"),
    "/usage": usage.FIELDS,
    "/approvals": ("answered",),
    "/proof": ("kind", "id", "by"),
}
"""What the addresses of pages may ask; those of other pages ask nothing."""
FORMS: dict[str, Page] = {
    "/approvals/answer": approvals.answer,
    "/stops": health.stop,
    "/stops/resume": health.resume,
}

_STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 502,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 503,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.UNIMPLEMENTED: 501,
}


def build(ledger: Remote, gateway: Remote | None, csrf: str) -> Starlette:
    """The pages of a ledger, and of a gateway where there is one, as an ASGI application without any guard."""
    templates = environment()

    def answering(page: Page) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            return await _answer(page, Asked(request, templates, ledger, gateway, csrf))

        return answer

    return Starlette(
        routes=[
            *(Route(path, answering(page), methods=["GET"]) for path, page in PAGES.items()),
            *(Route(path, answering(page), methods=["POST"]) for path, page in FORMS.items()),
            Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
            Route("/{rest:path}", answering(_nothing), methods=["GET", "POST"]),
        ]
    )


async def _nothing(asked: Asked) -> Response:
    return _failure(asked, 404, "There is no such page", "the address is none of these pages")


async def _answer(page: Page, asked: Asked) -> Response:
    try:
        if asked.request.url.path in PAGES:
            asked.refuse_other_fields(FIELDS.get(asked.request.url.path, ()))
        return await page(asked)
    except WrongAddress as wrong:
        return _failure(asked, 400, "This cannot be asked", str(wrong))
    except NotAnswered as failed:
        status = 503 if failed.reason == NOT_SEALED else _STATUSES.get(failed.code, 502)
        title = f"{failed.service} does not answer now" if failed.is_passing else f"{failed.service} refuses this"
        return _failure(asked, status, title, failed.details, failed)
    except Exception as error:  # noqa: BLE001 - whatever it is, the log has its place and no word of it
        log.error("ui.failed", path=asked.request.url.path, **describe_exception(error))
        return _failure(asked, 500, "These pages have a defect", "the log of audit-svc ui has its place")


def _failure(asked: Asked, status: int, title: str, sentence: str, failed: NotAnswered | None = None) -> Response:
    """A page, or in a part of one a sentence, which is asked for again by itself."""
    template = "failure_part.html" if asked.request.headers.get("hx-request") else "failure.html"
    told: dict[str, Any] = {"title": title[:1].upper() + title[1:], "sentence": sentence, "failed": failed}
    return asked.page(template, status, **told)
