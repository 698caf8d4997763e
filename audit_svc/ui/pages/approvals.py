"""Tool calls that wait for somebody's answer, and the answers."""

from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import approvals_pb2
from starlette.responses import Response

from audit_svc.ui.asked import Asked, WrongAddress
from audit_svc.ui.texts import link

PAGE = 100
VERDICTS = {"allowed": common_pb2.VERDICT_ALLOWED, "denied": common_pb2.VERDICT_DENIED}


async def approvals(asked: Asked) -> Response:
    """What waits, the oldest first. Raises NotAnswered."""
    waiting = await _waiting(asked) if asked.gateway else None
    return asked.page(
        "approvals.html", waiting=waiting, answered=asked.text("answered"), now_ms=asked.now_ms, known=VERDICTS
    )


async def count(asked: Asked) -> Response:
    """The part of the page that is asked for again and again. Raises NotAnswered."""
    waiting = await _waiting(asked) if asked.gateway else None
    return asked.page("waiting.html", waiting=waiting)


async def answer(asked: Asked) -> Response:
    """Takes a person's answer, with the digest of the arguments that were shown. Raises WrongAddress, NotAnswered."""
    form = asked.form()
    verdict = VERDICTS.get(form.get("verdict", ""))
    if verdict is None or not form.get("tool_call_id"):
        raise WrongAddress("an answer allows or denies one tool call")
    digest = None
    if form.get("key_id"):
        try:
            hmac = bytes.fromhex(form.get("digest", ""))
        except ValueError:
            raise WrongAddress("digest is not a digest: open the page again, and answer there") from None
        digest = common_pb2.ArgsDigest(key_id=form["key_id"], hmac_sha256=hmac)
    request = approvals_pb2.AnswerToolCallRequest(
        tool_call_id=form["tool_call_id"], verdict=verdict, reason=form.get("reason", ""), args_digest=digest
    )
    await asked.of_gateway().ask("AnswerToolCall", request)
    return asked.go_to(link("/approvals", answered=form["verdict"]))


async def _waiting(asked: Asked) -> list[approvals_pb2.PendingToolCall]:
    request = approvals_pb2.ListPendingToolCallsRequest(page_size=PAGE)
    response: approvals_pb2.ListPendingToolCallsResponse = await asked.of_gateway().ask("ListPendingToolCalls", request)
    return list(response.tool_calls)
