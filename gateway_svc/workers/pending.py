"""The tool calls that wait for answers, of several processes together."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Protocol

import grpc
from onrecord.gateway.v1 import approvals_pb2 as pb

from gateway_svc.approvals import page_of
from gateway_svc.errors import ShuttingDown, StoreUnavailable
from gateway_svc.workers.peers import REACH_SECONDS, Peers
from service_kit.handlers import Context

AGAIN_SECONDS = 0.2
JOIN_SECONDS = 2.0
"""How soon those that come later are followed too."""

Local = Callable[[Any, Context], Any]


def list_pending(peers: Peers, method: str, local: Local) -> Local:
    """ListPendingToolCalls over all workers: each gives its page, and the first of all of them are the page."""

    async def listed(request: pb.ListPendingToolCallsRequest, context: Context) -> pb.ListPendingToolCallsResponse:
        pages = [await local(request, context)]  # first, since it refuses what is wrong with the request
        data = request.SerializeToString()
        answers = await asyncio.gather(*(peer.call(method, data) for peer in peers))
        pages += map(pb.ListPendingToolCallsResponse.FromString, answers)
        return page_of(request, pages)

    return listed


class Other(Protocol):
    """Another process that has calls which wait. Equal ones are the same."""

    def stream(self, method: str, request: bytes) -> AsyncGenerator[bytes, None]:
        """The answers to a call with many. Raises ShuttingDown when it is not there."""
        ...


Others = Callable[[], Awaitable[Sequence[Other]]]
"""Gives those that there are now. It may raise what ends the call."""


def watch_pending(others: Others, method: str, local: Local) -> Local:
    """WatchPendingToolCalls here and at others, those that come later too."""

    async def watched(
        request: pb.WatchPendingToolCallsRequest, context: Context
    ) -> AsyncIterator[pb.WatchPendingToolCallsResponse]:
        told: asyncio.Queue[tuple[object, Any]] = asyncio.Queue(maxsize=1)
        data, tasks = request.SerializeToString(), dict[object, asyncio.Task[None]]()

        async def own() -> None:
            try:
                async with aclosing(local(request, context)) as answers:
                    async for answer in answers:
                        await told.put((None, answer))
            except Exception as error:  # noqa: BLE001 - whatever ends it is told by whom it is for
                await told.put((None, error))

        async def join(known: dict[Other, set[str]]) -> None:
            while True:
                await asyncio.sleep(JOIN_SECONDS)
                try:
                    there = set(await others())
                except StoreUnavailable:
                    continue
                for gone in known.keys() - there:
                    tasks.pop(gone).cancel()
                    if ids := known.pop(gone):
                        await told.put((gone, pb.WatchPendingToolCallsResponse(gone_ids=ids)))
                for other in there - known.keys():
                    known[other] = set()
                    tasks[other] = asyncio.create_task(_follow(other, method, data, told, known[other]))

        known: dict[Other, set[str]] = {other: set() for other in await others()}
        for other, ids in known.items():
            tasks[other] = asyncio.create_task(_follow(other, method, data, told, ids))
        silent: set[object] = {None, *known}
        tasks["own"] = asyncio.create_task(own())
        tasks["join"] = asyncio.create_task(join(known))
        first = pb.WatchPendingToolCallsResponse()
        try:
            async with asyncio.timeout(REACH_SECONDS) as reaching:
                while True:
                    who, answer = await told.get()
                    if isinstance(answer, Exception):
                        raise answer
                    if not silent:
                        yield answer
                        continue
                    silent.discard(who)
                    first.MergeFrom(answer)
                    if not silent:
                        reaching.reschedule(None)
                        yield first
        except TimeoutError:
            raise ShuttingDown("a process of those that run turns does not answer: it is being started again") from None
        finally:
            ending = list(tasks.values())
            for task in ending:
                task.cancel()
            await asyncio.wait(ending)

    return watched


async def _follow(
    other: Other, method: str, data: bytes, told: "asyncio.Queue[tuple[object, Any]]", known: set[str]
) -> None:
    """Tells what waits at another; known: those. When it is gone nothing of it waits, until it is there again."""
    while True:
        is_heard = False
        try:
            async with aclosing(other.stream(method, data)) as answers:
                async for answer in answers:
                    is_heard = True
                    change = pb.WatchPendingToolCallsResponse.FromString(answer)
                    known |= {call.tool_call_id for call in change.added}
                    known -= set(change.gone_ids)
                    await told.put((other, change))
        except (ShuttingDown, StoreUnavailable):
            pass
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                await told.put((other, error))
                return
        except Exception as error:  # noqa: BLE001 - who is refused is told why; what broke off is asked again
            if not is_heard:
                await told.put((other, error))
                return
        if known:
            await told.put((other, pb.WatchPendingToolCallsResponse(gone_ids=known)))
            known.clear()
        await asyncio.sleep(AGAIN_SECONDS)
