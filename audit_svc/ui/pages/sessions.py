"""Sessions, the newest first, by filters that stand in the address.

A session's own row has its engine, model, status and labels. Who it was for, its agents, tools and outcomes are its
calls': with such a filter the page walks calls, the newest first, and shows the sessions that they are of.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onrecord.audit.v1 import questions_pb2
from onrecord.common.v1 import common_pb2
from starlette.responses import Response

from audit_svc.ui.asked import Asked, WrongAddress
from audit_svc.ui.texts import iso, link

PAGE = 50
PAGE_BY_CALLS = 25
CALLS = 250
"""Calls that one page looks at, where the filter is about calls."""
SINCE, SINCE_BY_ROW = "7d", "24h"
"""From when on such calls are looked for, where nothing else is said. Persons and agents have no index: all calls since
then are looked at."""
BY_ROW = ("principal", "agent")
OUTCOMES = {name.removeprefix("OUTCOME_").lower(): number for name, number in common_pb2.Outcome.items() if number}
STATUSES = {
    name.removeprefix("SESSION_STATUS_").lower(): number for name, number in common_pb2.SessionStatus.items() if number
}
OF_CALLS = ("principal", "agent", "tool", "outcome")
FIELDS = (*OF_CALLS, "label", "engine", "model", "status", "since", "until", "by")


@dataclass(frozen=True, slots=True)
class Found:
    """A session of a page, and its matching calls where the filter is about calls. record: None where there is none."""

    id: str
    recorded_by: str
    record: questions_pb2.SessionRecord | None
    matches: int = 0


async def sessions(asked: Asked) -> Response:
    """A page of them. Raises WrongAddress, NotAnswered."""
    given: dict[str, Any] = {name: asked.text(name) for name in FIELDS if name not in {"label", "by"}}
    given |= {"label": asked.texts("label"), "by": asked.name_of_caller("by") or None}
    if of_calls := any(given[name] for name in OF_CALLS):
        given["since"] = given["since"] or (SINCE_BY_ROW if any(given[name] for name in BY_ROW) else SINCE)
    found, token = await (_by_calls if of_calls else _listed)(asked, given)
    # An age would be another time on the next page, for which the token is not good.
    times = {name: iso(at) for name in ("since", "until") if (at := asked.moment(name, given[name])) is not None}
    following = link("/sessions", **{**given, **times}, page=token) if token else ""
    return asked.page(
        "sessions.html",
        found=found,
        given=given,
        of_calls=of_calls,
        following=following,
        is_first=not asked.text("page"),
        outcomes=OUTCOMES,
        statuses=STATUSES,
    )


async def _listed(asked: Asked, given: Mapping[str, Any]) -> tuple[list[Found], str]:
    wanted = questions_pb2.SessionFilter(
        engine=given["engine"],
        model=given["model"],
        statuses=_values("status", STATUSES, given["status"]),
        labels=labels_of(given["label"]),
        created_from_ms=asked.moment("since"),
        created_before_ms=asked.moment("until"),
        recorded_by=given["by"],
    )
    request = questions_pb2.ListSessionRecordsRequest(filter=wanted, page_size=PAGE, page_token=asked.text("page"))
    response: questions_pb2.ListSessionRecordsResponse = await asked.ledger.ask("ListSessionRecords", request)
    found = [Found(record.session.id, record.receipt.recorded_by, record) for record in response.sessions]
    return found, response.next_page_token


async def _by_calls(asked: Asked, given: Mapping[str, Any]) -> tuple[list[Found], str]:
    if given["status"]:
        raise WrongAddress("status is asked of sessions alone: leave it out, or principal, agent, tool and outcome")
    wanted = questions_pb2.ToolCallFilter(
        engine=given["engine"],
        model=given["model"],
        labels=labels_of(given["label"]),
        created_from_ms=asked.moment("since", given["since"]),
        created_before_ms=asked.moment("until"),
        recorded_by=given["by"],
        principal=given["principal"],
        agent=common_pb2.Software(name=given["agent"]) if given["agent"] else None,
        tool_name=given["tool"],
        outcomes=_values("outcome", OUTCOMES, given["outcome"]),
    )
    request = questions_pb2.ListToolCallsRequest(filter=wanted, page_size=CALLS, page_token=asked.text("page"))
    response: questions_pb2.ListToolCallsResponse = await asked.ledger.ask("ListToolCalls", request)
    matches = Counter((record.tool_call.session_id, record.receipt.recorded_by) for record in response.tool_calls)
    shown = list(matches)[:PAGE_BY_CALLS]
    if len(shown) < len(matches):  # the next page begins behind the last call of the last session that is shown
        request.page_size = _calls_until(response, set(shown))
        response = await asked.ledger.ask("ListToolCalls", request)
        matches = Counter((record.tool_call.session_id, record.receipt.recorded_by) for record in response.tool_calls)
    records = await _records(asked, [session_id for session_id, _ in matches])
    return [Found(*key, records.get(key), count) for key, count in matches.items()], response.next_page_token


def _calls_until(response: questions_pb2.ListToolCallsResponse, shown: set[tuple[str, str]]) -> int:
    """How many calls there are ahead of the first one of a session that is not shown."""
    for number, record in enumerate(response.tool_calls):
        if (record.tool_call.session_id, record.receipt.recorded_by) not in shown:
            return number
    return len(response.tool_calls)


async def _records(asked: Asked, ids: list[str]) -> dict[tuple[str, str], questions_pb2.SessionRecord]:
    """The sessions of ids, by (id, recorded_by)."""
    found: dict[tuple[str, str], questions_pb2.SessionRecord] = {}
    request = questions_pb2.ListSessionRecordsRequest(filter=questions_pb2.SessionFilter(ids=ids), page_size=1000)
    while ids:
        response: questions_pb2.ListSessionRecordsResponse = await asked.ledger.ask("ListSessionRecords", request)
        found |= {(record.session.id, record.receipt.recorded_by): record for record in response.sessions}
        request.page_token = response.next_page_token
        if not request.page_token:
            break
    return found


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
