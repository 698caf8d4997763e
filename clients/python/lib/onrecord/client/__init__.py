"""onrecord from Python: run turns, decide on tool calls that ask, and record an application's own tool calls.

    from onrecord.client import Gateway, Ledger

    with Gateway() as gateway:
        turn = gateway.run("What is in README.md?")
        for piece in turn.text():
            print(piece, end="")

    with Ledger("~/.local/state/my-app", "127.0.0.1:50052") as ledger:
        with ledger.tool_call("lookup", {"city": "Kiel"}) as call:
            call.result_bytes = len(look_up("Kiel"))

AsyncGateway and AsyncLedger are the same for asyncio. What speaks to a gateway needs the extra `grpc`, and is imported
when it is first asked for: a Ledger has no gRPC in its process.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from onrecord.client.access import Access
from onrecord.client.ledger import AsyncLedger, Ledger
from onrecord.client.tool_call import ToolCall

if TYPE_CHECKING:
    from onrecord.client.aio.gateway import AsyncGateway
    from onrecord.client.aio.turn import AsyncTurn
    from onrecord.client.decisions import Decision, TurnFailed, ask_in_terminal
    from onrecord.client.sync.gateway import Gateway
    from onrecord.client.sync.turn import Turn
    from onrecord.gateway.v1.gateway_pb2 import SessionSettings

__all__ = [
    "Access",
    "AsyncGateway",
    "AsyncLedger",
    "AsyncTurn",
    "Decision",
    "Gateway",
    "Ledger",
    "SessionSettings",
    "ToolCall",
    "Turn",
    "TurnFailed",
    "ask_in_terminal",
]

_NEED_GRPC = {
    "AsyncGateway": "onrecord.client.aio.gateway",
    "AsyncTurn": "onrecord.client.aio.turn",
    "Decision": "onrecord.client.decisions",
    "Gateway": "onrecord.client.sync.gateway",
    "SessionSettings": "onrecord.gateway.v1.gateway_pb2",
    "Turn": "onrecord.client.sync.turn",
    "TurnFailed": "onrecord.client.decisions",
    "ask_in_terminal": "onrecord.client.decisions",
}


def __getattr__(name: str) -> Any:
    if name not in _NEED_GRPC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        found = getattr(import_module(_NEED_GRPC[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("grpc", "google"):
            raise
        raise ImportError(f"{name} needs grpcio: pip install grpcio, or the extra `grpc` of onrecord-client") from error
    globals()[name] = found
    return found
