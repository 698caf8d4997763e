"""onrecord from Python: run turns, decide on tool calls that ask, and record an application's own tool calls.

    from onrecord.client import Gateway, Ledger

    with Gateway() as gateway:
        turn = gateway.run("What is in README.md?")
        for piece in turn.text():
            print(piece, end="")

    with Ledger(state_dir="~/.local/state/my-app") as ledger:
        with ledger.tool_call("lookup", {"city": "Kiel"}) as call:
            call.result_bytes = len(look_up("Kiel"))

AsyncGateway and AsyncLedger are the same for asyncio.
"""

from onrecord.client.access import Access
from onrecord.client.aio.gateway import AsyncGateway
from onrecord.client.aio.turn import AsyncTurn
from onrecord.client.decisions import Decision, TurnFailed, ask_in_terminal
from onrecord.client.ledger import AsyncLedger, Ledger
from onrecord.client.sync.gateway import Gateway
from onrecord.client.sync.turn import Turn
from onrecord.client.tool_call import ToolCall
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
