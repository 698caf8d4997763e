"""The stops of a gateway, which reach the hooks of other agents too."""

import asyncio
import time
from pathlib import Path

import grpc
import structlog
from google.protobuf.message import DecodeError
from onrecord.gateway.v1 import control_pb2 as pb
from onrecord.gateway.v1 import control_pb2_grpc

from recording.channel.watched import WrongFile
from recording.delivery.connection import Target, describe
from recording.replacing import replace_file
from service_kit.producing.stop import Subject, holds_for, holds_for_tool

LOOK_SECONDS = 1.0
ASK_SECONDS = 3.0
MAX_AGE_SECONDS = 10.0
"""Of an answer; what is stopped is not known with an older one."""
NOT_ASKED = "the gateway has not answered yet"

log = structlog.get_logger(__name__)


class Stops:
    """What is stopped, as the gateway said last. follow() belongs to the event loop, the rest to any thread.

    The last answer holds until another comes, also after a restart: a stop ends when it is lifted, and not when the
    gateway is away.
    """

    def __init__(self, target: Target | None, state_dir: Path) -> None:
        """target: the gateway; None where there is none, and nothing is stopped.

        Raises:
            OSError: what was kept cannot be read.
        """
        self._target = target
        self._path = state_dir / "stops.binpb"
        self._in_force: tuple[pb.Stop, ...] = ()
        self._answered_at = -MAX_AGE_SECONDS
        self._why = NOT_ASKED
        if target is not None and self._path.exists():
            try:
                self._in_force = tuple(pb.ListStopsResponse.FromString(self._path.read_bytes()).stops)
            except DecodeError:
                log.error("stops.unreadable", path=str(self._path))

    def of(self, subject: Subject, tool: str) -> pb.Stop | None:
        """The stop of a call of the subject's; None where none is known."""
        found = (stop for stop in self._in_force if holds_for(stop, subject) or holds_for_tool(stop, tool))
        return next(found, None)

    def trouble(self) -> str:
        """Why it is not known what is stopped; empty where it is."""
        if self._target is None or time.monotonic() - self._answered_at < MAX_AGE_SECONDS:
            return ""
        return f"the gateway does not say what is stopped ({self._why})"

    def detail(self) -> str:
        """What health says; empty where all is well."""
        told = f"stops in force: {len(self._in_force)}" if self._in_force else ""
        return "; ".join(filter(None, (told, self.trouble())))

    async def follow_for_ever(self) -> None:
        """Asks the gateway each second. Whatever fails is tried again."""
        if self._target is None:
            return
        channel: grpc.aio.Channel | None = None
        was_known = True
        while True:
            try:
                channel = channel or self._target.channel()
                stub: control_pb2_grpc.ControlServiceAsyncStub = control_pb2_grpc.ControlServiceStub(channel)
                asked = stub.ListStops(pb.ListStopsRequest(), timeout=ASK_SECONDS, metadata=self._target.metadata())
                await self._learn(await asked)
            except (grpc.aio.AioRpcError, WrongFile, OSError) as error:
                self._why = describe(error) if isinstance(error, grpc.aio.AioRpcError) else str(error)
                if channel is not None:  # a new one has the current certificates
                    await channel.close()
                    channel = None
            if was_known != (not self.trouble()):
                was_known = not was_known
                log.log(20 if was_known else 40, "stops.known" if was_known else "stops.unknown", reason=self._why)
            await asyncio.sleep(LOOK_SECONDS)

    async def _learn(self, answer: pb.ListStopsResponse) -> None:
        self._answered_at, self._why = time.monotonic(), ""
        stops = tuple(answer.stops)
        if stops != self._in_force:
            self._in_force = stops
            log.warning("stops.changed", in_force=len(stops))
            await asyncio.to_thread(replace_file, self._path, answer.SerializeToString())
