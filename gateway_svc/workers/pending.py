"""The tool calls that wait for answers, of all workers together."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import grpc
from onrecord.gateway.v1 import approvals_pb2 as pb

from gateway_svc.approvals import page_of
from gateway_svc.errors import ShuttingDown
from gateway_svc.workers.peers import REACH_SECONDS, Peer, Peers
from service_kit.handlers import Context

AGAIN_SECONDS = 0.2

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


def watch_pending(peers: Peers, method: str, local: Local) -> Local:
    """WatchPendingToolCalls over all workers."""

    async def watched(
        request: pb.WatchPendingToolCallsRequest, context: Context
    ) -> AsyncIterator[pb.WatchPendingToolCallsResponse]:
        told: asyncio.Queue[tuple[object, Any]] = asyncio.Queue(maxsize=1)
        data = request.SerializeToString()

        async def own() -> None:
            try:
                async with aclosing(local(request, context)) as answers:
                    async for answer in answers:
                        await told.put((None, answer))
            except Exception as error:  # noqa: BLE001 - whatever ends it is told by whom it is for
                await told.put((None, error))

        tasks = [asyncio.create_task(own())]
        tasks += [asyncio.create_task(_follow(peer, method, data, told)) for peer in peers]
        silent: set[object] = {None, *peers}
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
            raise ShuttingDown("a worker of this gateway does not answer: it is being started again") from None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    return watched


async def _follow(peer: Peer, method: str, data: bytes, told: "asyncio.Queue[tuple[object, Any]]") -> None:
    """Tells what waits at a worker. When it is gone, nothing of it waits any more, until it is there again."""
    while True:
        known: set[str] = set()
        try:
            async with aclosing(peer.stream(method, data)) as answers:
                async for answer in answers:
                    change = pb.WatchPendingToolCallsResponse.FromString(answer)
                    known |= {call.tool_call_id for call in change.added}
                    known -= set(change.gone_ids)
                    await told.put((peer, change))
        except ShuttingDown:
            pass
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                await told.put((peer, error))
                return
        if known:
            await told.put((peer, pb.WatchPendingToolCallsResponse(gone_ids=known)))
        await asyncio.sleep(AGAIN_SECONDS)
