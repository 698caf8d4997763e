"""One question of a browser: its address, the services that can answer it, and the page that becomes of it."""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from audit_svc.ui.guard import FORM, TOKEN
from audit_svc.ui.remote import Remote
from service_kit.terminal.command import BadParameter
from service_kit.times import parse_time


class WrongAddress(Exception):
    """The address or the form asks for what cannot be; the message says what can."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. Its fields are those of the address, of a POST those of the form."""

    request: Request
    templates: Environment
    ledger: Remote
    gateway: Remote | None
    csrf: str
    now_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)

    def refuse_other_fields(self, known: Collection[str]) -> None:
        """Raises WrongAddress where the address has a field that is not known: it would be taken for a filter."""
        for name in self.request.query_params:
            if name not in known and name != TOKEN:
                fields = f"the fields here are {', '.join(known)}" if known else "this page has no fields"
                raise WrongAddress(f"{name} is not a field of this page: {fields}")

    def text(self, name: str, default: str = "") -> str:
        """A field of the address; default where it is not there or empty."""
        return self.request.query_params.get(name, "").strip() or default

    def texts(self, name: str) -> list[str]:
        """All fields of that name that are not empty."""
        return [value for value in self.request.query_params.getlist(name) if value]

    def name_of_caller(self, name: str) -> str | None:
        """A field whose empty value is a name, too; None where it is not there."""
        return self.request.query_params.get(name)

    def moment(self, name: str, default: str = "") -> int | None:
        """A time or an age in milliseconds since 1970-01-01 UTC. Raises WrongAddress."""
        if not (given := self.text(name, default)):
            return None
        try:
            return parse_time(given, self.now_ms)
        except (BadParameter, OverflowError) as error:
            raise WrongAddress(f"{name}: {getattr(error, 'message', 'that is not a time')}") from None

    def of_gateway(self) -> Remote:
        """The gateway. Raises WrongAddress where none is named."""
        if self.gateway is None:
            raise WrongAddress("no gateway is named: start audit-svc ui with --gateway host:port")
        return self.gateway

    def form(self) -> Mapping[str, str]:
        """The fields of a POST, which came from a form of ours."""
        fields: Mapping[str, str] = self.request.scope[FORM]
        return fields

    def page(self, template: str, status: int = 200, **told: Any) -> Response:
        """A page."""
        told |= {"path": self.request.url.path, "csrf": self.csrf, "has_gateway": self.gateway is not None}
        return HTMLResponse(self.templates.get_template(template).render(told), status)

    @staticmethod
    def go_to(address: str) -> Response:
        """Leads to another page, after a form."""
        return RedirectResponse(address, 303)
