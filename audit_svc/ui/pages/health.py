"""Whether the record is whole, and the switch that stops agents."""

import asyncio
from collections.abc import Callable, Mapping

from onrecord.audit.v1 import questions_pb2
from onrecord.gateway.v1 import control_pb2
from starlette.responses import Response

from audit_svc.ui.asked import Asked, WrongAddress
from audit_svc.ui.pages import checks
from audit_svc.ui.remote import NotAnswered

ACTS = 20
SCOPES: Mapping[str, str] = {
    "principal": "the turns of a person or program",
    "agent": "the turns of an agent",
    "engine": "the turns on an engine",
    "tool": "the calls of a tool",
    "label": "sessions with a label",
    "everything": "everything",
}


async def health(asked: Asked) -> Response:
    """The page. What the gateway does not tell this credential is said in its place. Raises NotAnswered."""
    findings, acts, (stops, why), troubled, whole = await asyncio.gather(
        checks.look(asked),
        _acts(asked),
        _stops(asked),
        checks.producers(asked, checks.TOLD, is_whole=False),
        checks.producers(asked, checks.TOLD, is_whole=True),
    )
    return asked.page(
        "health.html",
        findings=findings,
        verdict=checks.verdict(findings),
        acts=acts,
        producers=[*troubled, *whole],
        is_cut=checks.TOLD in (len(troubled), len(whole)),
        stops=stops,
        why=why,
        scopes=SCOPES,
    )


async def stop(asked: Asked) -> Response:
    """Stops agents. Raises WrongAddress, NotAnswered."""
    form = asked.form()
    request = control_pb2.StopAgentsRequest(
        scope=_scope(form.get("scope", ""), form.get("value", "").strip()),
        reason=_reason(form),
        let_running_calls_end=bool(form.get("let_end")),
    )
    await asked.of_gateway().ask("StopAgents", request)
    return asked.go_to("/health#stops")


async def resume(asked: Asked) -> Response:
    """Lifts a stop. Raises WrongAddress, NotAnswered."""
    form = asked.form()
    request = control_pb2.ResumeRequest(stop_id=form.get("stop_id", ""), reason=_reason(form))
    await asked.of_gateway().ask("Resume", request)
    return asked.go_to("/health#stops")


def _scope(kind: str, value: str) -> control_pb2.StopScope:
    """Everything is never what an empty or unknown field means."""
    if kind == "everything":
        if value:
            raise WrongAddress("everything has no name: leave the name out, or choose what it is of")
        return control_pb2.StopScope(everything=control_pb2.Everything())
    if not value:
        raise WrongAddress("say which: the name of what is stopped")
    key, sign, rest = value.partition("=")
    made: dict[str, Callable[[], control_pb2.StopScope]] = {
        "principal": lambda: control_pb2.StopScope(principal=value),
        "agent": lambda: control_pb2.StopScope(agent=value),
        "engine": lambda: control_pb2.StopScope(engine=value),
        "tool": lambda: control_pb2.StopScope(tool=value),
        "label": lambda: control_pb2.StopScope(label=control_pb2.Label(key=key, value=rest)),
    }
    if kind not in made or (kind == "label" and not (key and sign)):
        raise WrongAddress("what is stopped is one of the list, and a label is key=value")
    return made[kind]()


def _reason(form: Mapping[str, str]) -> str:
    if not (reason := form.get("reason", "").strip()):
        raise WrongAddress("say why: the reason is kept on the record")
    return reason


async def _acts(asked: Asked) -> list[questions_pb2.ControlRecord]:
    request = questions_pb2.ListControlsRequest(page_size=ACTS)
    response: questions_pb2.ListControlsResponse = await asked.ledger.ask("ListControls", request)
    return list(response.controls)


async def _stops(asked: Asked) -> tuple[list[control_pb2.Stop], NotAnswered | None]:
    """The stops in force, or why they are not told."""
    if asked.gateway is None:
        return [], None
    try:
        response: control_pb2.ListStopsResponse = await asked.gateway.ask("ListStops", control_pb2.ListStopsRequest())
    except NotAnswered as failed:
        return [], failed
    return list(response.stops), None
