"""Sessions, the newest first, by filters that stand in the address."""

from collections.abc import Mapping
from typing import Any

from onrecord.audit.v1 import questions_pb2
from onrecord.common.v1 import common_pb2
from starlette.responses import Response

from audit_svc.ui.asked import Asked, WrongAddress
from audit_svc.ui.texts import iso, link

PAGE = 50
OUTCOMES = {name.removeprefix("OUTCOME_").lower(): number for name, number in common_pb2.Outcome.items() if number}
STATUSES = {
    name.removeprefix("SESSION_STATUS_").lower(): number for name, number in common_pb2.SessionStatus.items() if number
}
FIELDS = ("principal", "agent", "tool", "outcome", "label", "engine", "model", "status", "since", "until", "by")


async def sessions(asked: Asked) -> Response:
    """A page of them. Raises WrongAddress, NotAnswered."""
    given: dict[str, Any] = {name: asked.text(name) for name in FIELDS if name not in {"label", "by"}}
    given |= {"label": asked.texts("label"), "by": asked.name_of_caller("by") or None}
    found, token = await _listed(asked, given)
    # An age would be another time on the next page, for which the token is not good.
    times = {name: iso(at) for name in ("since", "until") if (at := asked.moment(name, given[name])) is not None}
    following = link("/sessions", **{**given, **times}, page=token) if token else ""
    return asked.page(
        "sessions.html",
        found=found,
        given=given,
        following=following,
        is_first=not asked.text("page"),
        outcomes=OUTCOMES,
        statuses=STATUSES,
    )


async def _listed(asked: Asked, given: Mapping[str, Any]) -> tuple[list[questions_pb2.SessionRecord], str]:
    wanted = questions_pb2.SessionFilter(
        engine=given["engine"],
        model=given["model"],
        statuses=_values("status", STATUSES, given["status"]),
        labels=labels_of(given["label"]),
        created_from_ms=asked.moment("since"),
        created_before_ms=asked.moment("until"),
        recorded_by=given["by"],
        principal=given["principal"],
        agent_name=given["agent"],
        tool_name=given["tool"],
        outcomes=_values("outcome", OUTCOMES, given["outcome"]),
    )
    request = questions_pb2.ListSessionRecordsRequest(filter=wanted, page_size=PAGE, page_token=asked.text("page"))
    response: questions_pb2.ListSessionRecordsResponse = await asked.ledger.ask("ListSessionRecords", request)
    return list(response.sessions), response.next_page_token


def labels_of(given: list[str]) -> dict[str, str]:
    """Labels given as key=value. Raises WrongAddress."""
    pairs = [label.partition("=") for label in given]
    if any(not (key and sign) for key, sign, _ in pairs):
        raise WrongAddress("label is key=value, such as repository=shop")
    return {key.strip(): value.strip() for key, _, value in pairs}


def _values(field: str, known: Mapping[str, Any], given: str) -> list[Any]:
    if given and given not in known:
        raise WrongAddress(f"{field} is one of {', '.join(known)}")
    return [known[given]] if given else []
