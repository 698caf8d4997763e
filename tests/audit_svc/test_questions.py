"""Tails, exports and the log of queries, over a real port."""

import asyncio
import contextlib
import json
from typing import Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from onrecord.audit.v1 import administration_pb2, questions_pb2

from audit_svc import questions
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row, question, record_request, request, row_of, session_row

SECRET = "hunter2-hunter2"


async def read(stream, count: int) -> list[questions_pb2.TailToolCallsResponse]:
    """Responses until they hold count rows."""
    responses: list[questions_pb2.TailToolCallsResponse] = []
    async with asyncio.timeout(30):
        while sum(len(response.tool_calls) for response in responses) < count:
            responses.append(await stream.read())
    return responses


def ids(responses) -> list[str]:
    return [row.id for response in responses for row in map(row_of, response.tool_calls)]


async def test_a_tail_begins_now_and_shows_what_its_filters_let_through(ledger):
    await ledger.RecordBatch(request(audit_row(id="before")))
    tail = ledger.TailToolCalls(question(questions_pb2.TailToolCallsRequest, tool_name="bash", has_error=True))
    await tail.wait_for_connection()
    for number in range(3):
        await ledger.RecordBatch(
            request(
                audit_row(id=f"failed-{number}", error="x"),
                audit_row(id=f"read-{number}", error="x", tool_name="read"),
                audit_row(id=f"fine-{number}"),
            )
        )
    assert ids(await read(tail, 3)) == ["failed-0", "failed-1", "failed-2"]
    tail.cancel()


async def test_a_tail_without_rows_gives_signs_of_life_with_its_position(ledger, monkeypatch):
    monkeypatch.setattr(questions, "ALIVE_SECONDS", 0.0)
    await ledger.RecordBatch(request(audit_row()))
    tail = ledger.TailToolCalls(questions_pb2.TailToolCallsRequest())
    async with asyncio.timeout(30):
        alive = [await tail.read() for _ in range(3)]
    tail.cancel()
    assert [(len(one.tool_calls), one.position) for one in alive] == [(0, 1)] * 3
    assert all(one.resume_token for one in alive)


async def test_a_tail_goes_on_from_its_token_without_losing_or_doubling_a_row(ledger):
    asked = question(questions_pb2.TailToolCallsRequest, engine="ollama")
    tail = ledger.TailToolCalls(asked)
    await tail.wait_for_connection()
    sent = [f"row-{number}" for number in range(40)]
    seen: list[str] = []

    async def record() -> None:
        for name in sent:
            await ledger.RecordBatch(request(audit_row(id=name, created_at_ms=NOW_MS - len(seen))))

    recording = asyncio.create_task(record())
    while len(seen) < len(sent):
        [*_, last] = responses = await read(tail, min(7, len(sent) - len(seen)))
        seen += ids(responses)
        tail.cancel()
        tail = ledger.TailToolCalls(
            question(questions_pb2.TailToolCallsRequest, engine="ollama", resume_token=last.resume_token)
        )
    await recording
    tail.cancel()
    assert seen == sent
    other = ledger.TailToolCalls(
        question(questions_pb2.TailToolCallsRequest, engine="openai", resume_token=last.resume_token)
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await other.read()
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_tail_that_has_seen_nothing_can_go_on_from_where_it_began(ledger):
    tail = ledger.TailToolCalls(questions_pb2.TailToolCallsRequest())
    first = await tail.read()
    assert not first.tool_calls
    tail.cancel()
    await ledger.RecordBatch(request(audit_row(id="meanwhile")))
    tail = ledger.TailToolCalls(questions_pb2.TailToolCallsRequest(resume_token=first.resume_token))
    assert ids(await read(tail, 1)) == ["meanwhile"]
    tail.cancel()


@pytest.mark.long
async def test_a_tail_goes_on_from_each_of_several_responses_that_hold_large_rows(ledger):
    """What is more than one response holds comes in several, and no token is beyond what its response shows."""
    began = await ledger.TailToolCalls(questions_pb2.TailToolCallsRequest()).read()
    sent = [audit_row(id=f"{number:04}", args_summary="x" * 4000, error="y" * 2000) for number in range(1000)]
    await ledger.RecordBatch(request(*sent[:500]))
    await ledger.RecordBatch(request(*sent[500:]))
    seen: list[str] = []
    looks = 0
    token = began.resume_token
    while len(seen) < len(sent):
        tail = ledger.TailToolCalls(questions_pb2.TailToolCallsRequest(resume_token=token))
        responses = await read(tail, 1)
        tail.cancel()
        seen += ids(responses)
        token = responses[-1].resume_token
        looks += 1
    assert seen == [row.id for row in sent]
    assert looks > 1


@pytest.mark.long
async def test_a_tail_that_reads_too_slowly_is_told_how_many_rows_it_missed(ledger, monkeypatch):
    """Rows of several KiB fill what gRPC holds for a client that does not read."""
    monkeypatch.setattr(questions, "MAX_BEHIND", 500)
    tail = ledger.TailToolCalls(questions_pb2.TailToolCallsRequest(skip_when_behind=True))
    await tail.wait_for_connection()
    total = 0
    for _ in range(30):
        await ledger.RecordBatch(request(*[audit_row(args_summary="x" * 4000, error="y" * 2000) for _ in range(500)]))
        total += 500
    seen = missed = 0
    async with asyncio.timeout(30):
        while seen + missed < total:
            response = await tail.read()
            seen += len(response.tool_calls)
            if response.HasField("skipped"):
                missed += response.skipped.last - response.skipped.first + 1
    tail.cancel()
    assert seen + missed == total
    assert missed > 0


async def test_a_tail_begins_after_a_position_and_tells_how_far_it_is(ledger):
    await ledger.RecordBatch(request(*[audit_row(id=f"{number}") for number in range(5)]))
    tail = ledger.TailToolCalls(questions_pb2.TailToolCallsRequest(after_position=2))
    first, second = await tail.read(), await tail.read()
    assert (first.position, list(first.tool_calls)) == (2, [])
    assert ids([second]) == ["2", "3", "4"]
    assert [record.receipt.position for record in second.tool_calls] == [3, 4, 5]
    assert second.position == 5
    tail.cancel()


@pytest.mark.long
async def test_a_tail_that_reads_too_slowly_and_may_not_skip_ends_and_can_go_on(ledger, monkeypatch):
    monkeypatch.setattr(questions, "MAX_BEHIND", 500)
    tail = ledger.TailToolCalls(questions_pb2.TailToolCallsRequest())
    await tail.wait_for_connection()
    for _ in range(30):
        await ledger.RecordBatch(request(*[audit_row(args_summary="x" * 4000, error="y" * 2000) for _ in range(500)]))
    seen, refused = 0, None
    while refused is None:
        try:
            seen += len((await tail.read()).tool_calls)
        except grpc.aio.AioRpcError as error:
            refused = error
    assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert seen < 15_000
    status, info = rpc_status.from_call(cast(Any, refused)), error_details_pb2.ErrorInfo()
    assert status is not None
    assert status.details[0].Unpack(info)
    assert info.reason == "TAIL_BEHIND"
    token = info.metadata["resume_token"]
    rest = ledger.TailToolCalls(questions_pb2.TailToolCallsRequest(resume_token=token))
    assert len(ids(await read(rest, 15_000 - seen))) == 15_000 - seen
    rest.cancel()


async def test_tails_have_a_limit_and_give_their_places_back(ledger, monkeypatch):
    monkeypatch.setattr(questions, "MAX_TAILS", 2)
    tails = [ledger.TailToolCalls(questions_pb2.TailToolCallsRequest()) for _ in range(2)]
    for tail in tails:
        await tail.wait_for_connection()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ledger.TailToolCalls(questions_pb2.TailToolCallsRequest()).read()
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    for tail in tails:
        tail.cancel()
    async with asyncio.timeout(30):
        while True:
            another = ledger.TailToolCalls(questions_pb2.TailToolCallsRequest())
            with contextlib.suppress(grpc.aio.AioRpcError):
                await another.wait_for_connection()
                break
    another.cancel()


async def test_an_export_is_what_was_there_when_it_began(ledger):
    sent = [audit_row(created_at_ms=NOW_MS - number % 50) for number in range(1300)]
    await ledger.RecordBatch(request(*sent))
    asked = question(questions_pb2.ExportToolCallsRequest, tool_name="bash")
    export = aiter(ledger.ExportToolCalls(asked))
    calls = list((await anext(export)).tool_calls)
    await ledger.RecordBatch(request(*[audit_row(created_at_ms=NOW_MS + 5) for _ in range(10)]))
    async for response in export:
        calls += response.tool_calls
        is_last = not response.resume_token
    assert is_last
    assert list(map(row_of, calls)) == sorted(sent, key=lambda row: row.created_at_ms)


async def test_an_export_that_broke_goes_on_from_each_of_its_responses(ledger):
    """As it was when it began: what is recorded meanwhile is not in it."""
    sent = [audit_row(created_at_ms=NOW_MS - number % 50) for number in range(1300)]
    await ledger.RecordBatch(request(*sent))
    found, asked = list[str](), questions_pb2.ExportToolCallsRequest()
    responses = 0
    while responses == 0 or asked.resume_token:
        export = ledger.ExportToolCalls(asked)
        response = await export.read()
        export.cancel()
        found += ids([response])
        asked.resume_token = response.resume_token
        responses += 1
        await ledger.RecordBatch(request(audit_row(created_at_ms=NOW_MS + responses)))
    assert found == [row.id for row in sorted(sent, key=lambda row: row.created_at_ms)]
    assert responses > 2


async def test_model_requests_are_listed_exported_and_followed(ledger):
    sent = [cost_row(id=f"{number:04}", created_at_ms=NOW_MS + number) for number in range(1300)]
    sent[7].error = "engine_rejected, HTTP 400"
    await ledger.RecordBatch(record_request(model_requests=sent, tool_calls=[audit_row(error="x")]))
    page = await ledger.ListModelRequests(questions_pb2.ListModelRequestsRequest(page_size=1000))
    rest = await ledger.ListModelRequests(
        questions_pb2.ListModelRequestsRequest(page_size=1000, page_token=page.next_page_token)
    )
    assert [row_of(one) for one in [*page.model_requests, *rest.model_requests]] == sent[::-1]
    failed = await ledger.ListModelRequests(question(questions_pb2.ListModelRequestsRequest, has_error=True))
    assert [row_of(one) for one in failed.model_requests] == [sent[7]]
    found, asked = list[Any](), questions_pb2.ExportModelRequestsRequest()
    while not found or asked.resume_token:  # as after a cut, from each of its responses
        export = ledger.ExportModelRequests(asked)
        response = await export.read()
        export.cancel()
        found += map(row_of, response.model_requests)
        asked.resume_token = response.resume_token
        await ledger.RecordBatch(record_request(model_requests=[cost_row(created_at_ms=NOW_MS + 5000)]))
    assert found == sent
    tail = ledger.TailModelRequests(question(questions_pb2.TailModelRequestsRequest, engine="ollama"))
    first = await tail.read()
    assert (len(first.model_requests), first.position > 1300) == (0, True)
    new = cost_row(engine="ollama", created_at_ms=NOW_MS - 5)
    await ledger.RecordBatch(record_request(model_requests=[cost_row(), new]))
    async with asyncio.timeout(30):
        assert [row_of(one) for one in (await tail.read()).model_requests] == [new]
    tail.cancel()


async def test_each_query_leaves_a_row_with_who_asked_what_and_how_it_ended(ledger):
    await ledger.RecordBatch(record_request(tool_calls=[audit_row()], sessions=[session_row()]))
    await ledger.ListToolCalls(
        question(questions_pb2.ListToolCallsRequest, session_id="session-1", args_contain=SECRET)
    )
    with pytest.raises(grpc.aio.AioRpcError):
        await ledger.GetSessionRecord(questions_pb2.GetSessionRecordRequest(session=questions_pb2.RowKey(id="nobody")))
    async for _ in ledger.ExportToolCalls(questions_pb2.ExportToolCallsRequest()):
        pass
    async with asyncio.timeout(30):
        found: dict[str, administration_pb2.QueryRow] = {}
        while not {"ExportToolCalls", "GetSessionRecord", "ListToolCalls"} <= found.keys():
            response = await ledger.ListQueries(administration_pb2.ListQueriesRequest())
            found = {query.method: query for query in response.queries}
            await asyncio.sleep(0.1)
    export, session, listing = (found[method] for method in ("ExportToolCalls", "GetSessionRecord", "ListToolCalls"))
    assert (listing.caller, listing.method, listing.status, listing.rows) == ("anonymous", "ListToolCalls", "OK", 0)
    in_vain = {"session_id": "(9 characters)", "args_contain": "(15 characters)"}
    assert json.loads(listing.filters) == {"filter": in_vain}
    assert (session.method, session.status) == ("GetSessionRecord", "NOT_FOUND")
    assert (export.method, export.rows) == ("ExportToolCalls", 1)
    only = await ledger.ListQueries(administration_pb2.ListQueriesRequest(method="GetSessionRecord"))
    assert [query.id for query in only.queries] == [session.id]
    page = await ledger.ListQueries(administration_pb2.ListQueriesRequest(page_size=1))
    rest = await ledger.ListQueries(administration_pb2.ListQueriesRequest(page_token=page.next_page_token))
    assert page.queries[0].id not in [query.id for query in rest.queries]


@pytest.mark.long
async def test_a_query_whose_deadline_has_passed_ends_and_is_logged_as_cancelled(ledger):
    await ledger.RecordBatch(request(*[audit_row() for _ in range(2000)]))
    export = ledger.ExportToolCalls(questions_pb2.ExportToolCallsRequest())
    await export.read()
    export.cancel()
    async with asyncio.timeout(30):
        while not (
            found := (await ledger.ListQueries(administration_pb2.ListQueriesRequest(method="ExportToolCalls"))).queries
        ):
            await asyncio.sleep(0.1)
    assert found[0].status in ("CANCELLED", "OK")
