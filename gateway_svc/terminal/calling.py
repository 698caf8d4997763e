"""How a command calls a running gateway, and what of it is shown."""

import asyncio
import re
import sys
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

import grpc
from google.rpc import error_details_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

from recording.channel.details import details_of
from recording.channel.token import Metadata
from service_kit.client import open_channel
from service_kit.printable import json_text
from service_kit.terminal import printing
from service_kit.terminal.command import BadParameter, Exit, Option
from service_kit.terminal.failures import Failed, about_cause
from service_kit.terminal.ids import is_whole, too_short, whole_id
from service_kit.terminal.messages import set_fields
from service_kit.unanswered import GATEWAY, told

T = TypeVar("T")

Target = Annotated[str, Option(envvar="GATEWAY_LISTEN", help="The gateway's address, host:port.")]
Json = printing.Json
DEFAULT_TARGET = "127.0.0.1:50051"
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CANCELLED = 130
GRPC_TIMEOUT_SECONDS = 10.0
LOOKED_THROUGH = 10_000
"""The newest sessions, among which a part of an id is looked for."""
SETTINGS = {
    "engine": "engine",
    "model": "model",
    "system-prompt": "system_prompt",
    "max-cost": "max_cost_micros",
    "fallback": "fallback",
    "shadow": "shadows",
    "label": "labels",
}
"""The settings of a session as options name them, and as the wire does."""
_TYPED = {field: f"--{option}" for option, field in SETTINGS.items()} | {
    **{name: f"--{name}" for name in ("principal", "agent", "tool", "reason")},
    "input": "PROMPT",
    "label": "--label",
    "session_id": "SESSION",
    "stop_id": "ID",
    "tool_call_id": "ID",
}
"""The fields of requests that a gateway may refuse, by what is typed."""
_PATH = re.compile(r"((?:new_session|settings|scope)\.)?(\w+)(\.(engine|model|key|value))?")

out = printing.Printer()
err = printing.Printer(stderr=True)


def split_label(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign:
        raise BadParameter(f"{text!r} is not key=value", param_hint="--label")
    return key, value


def choice(text: str) -> pb.EngineChoice:
    engine, _, model = text.partition(":")
    return pb.EngineChoice(engine=engine, model=model)


def money(usage: common_pb2.Usage) -> str:
    known = f"${usage.known_cost_micros / 1_000_000:,.6f}"
    if not usage.unpriced_requests:
        return known
    return f"at least {known}" if usage.known_cost_micros else "cost unknown"


def print_json(message: Any) -> None:
    sys.stdout.write(json_text(set_fields(message), ascii_only=True) + "\n")
    sys.stdout.flush()


async def awaited(call: Any) -> Any:
    return await call


def in_options(error: grpc.aio.AioRpcError) -> str:
    """What a gateway says of a field of the request, said of the option that it was typed as."""
    details, fields = error.details() or "", ["session_id"]
    refused = error_details_pb2.BadRequest()
    for detail in details_of(error):
        if detail.Unpack(refused):
            fields += [each.field for each in refused.field_violations]
    for field in fields:
        path = _PATH.fullmatch(field)
        if path and path[2] in _TYPED and details.startswith(field):
            part = f"'s {path[4]}" if path[4] in ("key", "value") else ""
            return f"{_TYPED[path[2]]}{part}{details.removeprefix(field)}"
    return details


def call_gateway(
    target: str,
    work: Callable[[Any, Metadata], Coroutine[Any, Any, T]],
    stub: Callable[[Any], Any] = gateway_pb2_grpc.GatewayServiceStub,
) -> T:
    """Runs work with a stub of the gateway at target, and the metadata of its calls.

    Raises:
        Failed: a call failed.
        Exit: ^C was typed.
    """

    async def connected() -> T:
        channel, metadata = open_channel(target)
        async with channel:
            return await work(stub(channel), metadata)

    try:
        return asyncio.run(connected())
    except grpc.aio.AioRpcError as error:
        code = EXIT_USAGE if error.code() is grpc.StatusCode.INVALID_ARGUMENT else EXIT_FAILED
        named = about_cause(error).get("metadata", {})
        part = too_short(named.get("id", "")) if named.get("resource") == "session" else ""
        raise Failed(told(target, GATEWAY, error, in_options(error)) + part, code, error) from None
    except KeyboardInterrupt:
        raise Exit(EXIT_CANCELLED) from None


def named_session(target: str, text: str, hint: str) -> str:
    """The id of the session that text stands for, see service_kit.terminal.ids. Raises as call_gateway() does."""
    if is_whole(text):
        return text

    async def look(stub: Any, metadata: Metadata) -> list[str]:
        request, found = pb.ListSessionsRequest(page_size=1000), list[str]()
        while len(found) < LOOKED_THROUGH and text not in found:
            page = await stub.ListSessions(request, timeout=GRPC_TIMEOUT_SECONDS, metadata=metadata)
            found += [session.id for session in page.sessions]
            request.page_token = page.next_page_token
            if not request.page_token:
                break
        return found

    return whole_id(text, call_gateway(target, look), hint)
