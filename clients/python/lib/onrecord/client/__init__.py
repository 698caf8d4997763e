"""onrecord from Python: run turns, answer what asks, and put an application's own tool calls on the record.

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
from onrecord.client.gateway import AsyncGateway, Gateway
from onrecord.client.ledger import AsyncLedger, Ledger
from onrecord.client.tool_call import ToolCall
from onrecord.client.turn import Answer, AsyncTurn, Turn, ask_in_terminal

__all__ = [
    "Access",
    "Answer",
    "AsyncGateway",
    "AsyncLedger",
    "AsyncTurn",
    "Gateway",
    "Ledger",
    "ToolCall",
    "Turn",
    "ask_in_terminal",
]
