"""Callers who go on with their sessions, whichever replica is there, and note what they were told."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import grpc
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

TURN_SECONDS = 60.0
"""How long a turn may take until it is told its end, before it counts as one that hangs."""
_PAUSE_SECONDS = 0.1


@dataclass
class Told:
    """What the callers of all sessions were told."""

    ends: Counter[str] = field(default_factory=Counter)
    """How turns ended, by the name of the stop reason, of the status, or CUT."""
    calls: set[str] = field(default_factory=set)
    """Ids of tool calls that began."""

    @property
    def turns(self) -> int:
        """How many turns have ended."""
        return self.ends.total()


class Caller:
    """One session, and who runs its turns, one after the other."""

    def __init__(self, channel: grpc.aio.Channel, token: tuple[tuple[str, str], ...], told: Told) -> None:
        self._stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        self._token = token
        self._told = told
        self.session_id = ""
        self.completed = 0

    async def complete_turns(self, number: int) -> None:
        """Runs turns until so many more have completed: one that is cut is asked for again, in the same session.

        Raises:
            AssertionError: a turn ended in a way that no replica's end explains.
        """
        wanted = self.completed + number
        while self.completed < wanted:
            try:
                async with asyncio.timeout(TURN_SECONDS):
                    end = await self._turn()
            except TimeoutError:
                end = "HANGS"
            self._told.ends[end] += 1
            if end == "COMPLETED":
                self.completed += 1
            else:
                # Of a killed gateway's turn the stream is cut, by Envoy's RST_STREAM; what was not begun is refused.
                assert end in ("CUT", "UNAVAILABLE"), end
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _turn(self) -> str:
        request = pb.RunTurnRequest(input="go")
        if self.session_id:
            request.session_id = self.session_id
        else:
            request.new_session.SetInParent()
        try:
            async for event in self._stub.RunTurn(request, metadata=self._token):
                if event.HasField("turn_accepted"):
                    self.session_id = event.turn_accepted.session_id
                elif event.HasField("tool_call_started"):
                    self._told.calls.add(event.tool_call_started.tool_call_id)
                elif event.HasField("turn_finished"):
                    if event.turn_finished.HasField("error"):
                        return f"FAILED: {event.turn_finished.error.message}"
                    return pb.StopReason.Name(event.turn_finished.stop_reason).removeprefix("STOP_REASON_")
        except grpc.aio.AioRpcError as error:
            return "CUT" if "RST_STREAM" in (error.details() or "") else error.code().name
        return "NO END"
