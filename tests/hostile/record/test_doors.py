"""Control characters and numbers without bounds, said by certificates, clients, producers and model servers."""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from google.protobuf.descriptor import FieldDescriptor
from onrecord.audit.v1 import administration_pb2, administration_pb2_grpc, audit_pb2, questions_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

from audit_svc.ledger.steps import HOUR_MS
from demo.script import Call, Script, Step, Tokens
from recording.channel.tls import ClientFiles, channel_credentials
from tests.audit_svc.samples import audit_row, cost_row, record_request, session_row
from tests.e2e.conftest import Pair, run_turn
from tests.support.certificates import Authority

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(120)]

MAX_INT64 = 2**63 - 1
SPIFFE = "spiffe://corp.example/ops"


async def code_of(call: Any) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


def issue(authority: Authority, file: str, name: str, uris: Sequence[str] = ()) -> ClientFiles:
    pair = authority.issue(name, *map(x509.UniformResourceIdentifier, uris), file=file)
    return ClientFiles(authority.path, pair.certificate, pair.key)


async def test_a_certificate_is_known_by_its_whole_names(make_pair, tmp_path: Path):
    """Of both services: a name that goes on behind a NUL is not the name before it."""
    authority = Authority(tmp_path)
    server = authority.server()
    callers = tmp_path / "callers.toml"
    callers.write_text(
        f'[[callers]]\nname = "ops"\nroles = ["admin", "caller"]\ncertificate = "ops"\n\n'
        f'[[callers]]\nname = "spiffe"\nroles = ["admin", "caller"]\ncertificate = "{SPIFFE}"\n'
    )
    files = {
        "TLS_CERT": str(server.certificate),
        "TLS_KEY": str(server.key),
        "TLS_CLIENT_CA": str(authority.path),
        "TOKENS_FILE": str(callers),
    }
    pair = await make_pair(Script(steps=(Step(text="done"),)))
    ports = [
        pair.start_audit(**{f"AUDIT_{name}": value for name, value in files.items()}),
        pair.start_gateway(
            **{f"GATEWAY_{name}": value for name, value in files.items()}, GATEWAY_AUDIT_TARGET="127.0.0.1:1"
        ),
    ]
    audit, gateway = (f"localhost:{service.address.rpartition(':')[2]}" for service in ports)
    for number, (name, uris, wanted) in enumerate(
        (
            ("ops", (), "OK"),
            ("nobody", (SPIFFE,), "OK"),
            ("ops\0.evil.example", (), "UNAUTHENTICATED"),
            ("nobody", (f"{SPIFFE}\0/evil",), "UNAUTHENTICATED"),
            ("ops\n", (), "UNAUTHENTICATED"),
        )
    ):
        own = [("grpc.use_local_subchannel_pool", 1)]
        shown = channel_credentials(issue(authority, f"client-{number}", name, uris))()
        async with (
            grpc.aio.secure_channel(audit, shown, own) as to_audit,
            grpc.aio.secure_channel(gateway, shown, own) as to_gateway,
        ):
            administration = administration_pb2_grpc.AdministrationServiceStub(to_audit)
            assert await code_of(administration.ListQueries(administration_pb2.ListQueriesRequest())) == wanted
            sessions = gateway_pb2_grpc.GatewayServiceStub(to_gateway)
            assert await code_of(sessions.ListSessions(pb.ListSessionsRequest())) == wanted


async def record(pair: Pair, **rows: Any) -> audit_pb2.RecordResponse:
    return await (await pair.audit()).RecordBatch(record_request(**rows))


async def test_names_with_control_characters_are_neither_asked_nor_recorded(make_pair):
    pair = await make_pair(Script(steps=(Step(text="done"),)))
    pair.start_audit()
    questions = await pair.questions()
    forged = session_row(id="forged", labels={"user": "mallory", "user\0": "alice"})
    told = await record(pair, sessions=[session_row(id="honest"), forged], tool_calls=[audit_row(tool_name="a\0b")])
    assert [(one.id, one.field) for one in told.rejections][1:] == [("forged", "labels")]
    assert (told.stored, told.rejections[0].field) == (1, "tool_name")
    await record(pair, tool_calls=[audit_row(id="plain", args_summary='{"command":"ls"}')])
    for condition in ({"args_contain": "\0"}, {"args_contain": "zzz\0"}, {"labels": {"user\0": "alice"}}):
        request = questions_pb2.ListToolCallsRequest(filter=questions_pb2.ToolCallFilter(**condition))
        assert await code_of(questions.ListToolCalls(request)) == "INVALID_ARGUMENT"
    gateway = await pair.gateway(pair.start_gateway())
    settings = pb.SessionSettings(labels={"user": "mallory", "user\0": "alice"})
    assert await code_of(gateway.CreateSession(pb.CreateSessionRequest(settings=settings))) == "INVALID_ARGUMENT"


async def test_a_call_stays_on_the_record_whatever_its_model_server_names(make_pair):
    """The server gives a call an id with control characters: the row has it with escapes."""
    call = Call(name="read", arguments={"path": "notes.txt"}, id="call\0one\n")
    pair = await make_pair(Script(steps=(Step(tool_calls=(call,)), Step(text="done"))))
    pair.start_audit()
    await run_turn(await pair.gateway(pair.start_gateway()), engine="openai")
    [row] = await pair.rows(1)
    assert row.provider_call_id == "call\\x00one\\x0a"


async def test_costs_that_nothing_can_sum_are_counted_up_to_a_bound_and_pruned(make_pair):
    pair = await make_pair(Script(steps=(Step(text="done"),)))
    service = pair.start_audit()
    huge = dict.fromkeys(
        ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens", "cost_micros", "duration_ms"),
        MAX_INT64,
    )
    old = 1_000_000_000_000
    calls = [audit_row(created_at_ms=old, duration_ms=MAX_INT64, result_bytes=MAX_INT64) for _ in range(3)]
    told = await record(pair, model_requests=[cost_row(created_at_ms=old, **huge) for _ in range(4)], tool_calls=calls)
    assert (told.stored, list(told.rejections)) == (7, [])
    administration = administration_pb2_grpc.AdministrationServiceStub(await pair.channel(service.address))
    questions = await pair.questions()
    for group_by in ([], ["engine"], ["session"], ["day"], ["label:user"]):
        await questions.SummarizeUsage(questions_pb2.SummarizeUsageRequest(group_by=group_by))
    for dry_run in (True, False):
        prune = administration_pb2.PruneRequest(created_before_ms=old + 86_400_000, dry_run=dry_run)
        *_, last = [response async for response in administration.Prune(prune)]
        assert last.model_requests == 3, "the last that came stays"


async def test_a_model_server_that_counts_without_end_stops_nobody(make_pair):
    """Every step reports the most tokens that are taken: the turn, its session and the listing answer, also later."""
    steps = 40
    huge = Tokens(input=2**53, output=2**53)
    call = Call(name="read", arguments={"path": "notes.txt"})
    pair = await make_pair(Script(steps=(Step(tool_calls=(call,), tokens=huge, repeat=steps), Step(text="done"))))
    pair.start_audit()
    for _ in range(2):
        service = pair.start_gateway()
        gateway = await pair.gateway(service)
        events = await run_turn(gateway, engine="openai", max_steps=steps + 1)
        finished = events[-1].turn_finished
        assert finished.usage.input_tokens >= steps * 2**53
        session_id = events[0].turn_accepted.session_id
        got = await gateway.GetSession(pb.GetSessionRequest(session_id=session_id))
        assert got.session.usage == finished.usage
        assert (await gateway.ListSessions(pb.ListSessionsRequest())).sessions
        service.terminate()


ROWS: dict[str, Any] = {"tool_calls": audit_row, "model_requests": cost_row, "sessions": session_row}
OLD_MS = 1_000_000_000_000
UINT32 = 2**32 - 1
_LARGEST = {
    FieldDescriptor.TYPE_INT64: MAX_INT64,
    FieldDescriptor.TYPE_INT32: 2**31 - 1,
    FieldDescriptor.TYPE_UINT32: UINT32,
}


def numbers(descriptor: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    """The paths of all numbers below a row, each with the largest that it can say."""
    for field in descriptor.fields:
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            yield from numbers(field.message_type, (*path, field.name))
        elif field.type in _LARGEST:
            yield (*path, field.name), _LARGEST[field.type]


def forged(make: Any, path: tuple[str, ...], value: int) -> Any:
    """An old row in which the number at path is value."""
    times = {"created_at_ms": OLD_MS, "id": f"{'.'.join(path)} {value}"}
    row = make(**times)
    if hasattr(row, "updated_at_ms"):
        row.updated_at_ms = OLD_MS
    *above, name = path
    inner = row
    for part in above:
        inner = getattr(inner, part)
    setattr(inner, name, value)
    return row


def leave_a_prune_with_full_sums(database: Path) -> None:
    """As a version without bounds may have left it, in the middle: the next start goes on with it."""
    connection = sqlite3.connect(database)
    names = ("tool_calls", "errors", "model_requests", "input_tokens", "output_tokens", "cost_micros", "sessions")
    connection.execute(
        f"INSERT INTO pruned (pruned_before, {', '.join(names)}, pruned_by, started_at) "
        f"SELECT coalesce(max(pruned_before), {OLD_MS - OLD_MS % HOUR_MS}) + {HOUR_MS}, {', '.join('?' * len(names))}, "
        "'test', 1 FROM pruned",
        [MAX_INT64] * len(names),
    )
    connection.commit()
    connection.close()


async def test_no_number_of_any_row_makes_anything_an_internal_error_also_after_a_restart(make_pair):
    """Each number of each row is said as large and as small as it goes, three times: from the descriptors."""
    pair = await make_pair(Script(steps=(Step(text="done"),)))
    service = pair.start_audit()
    for kind, make in ROWS.items():
        rows = [
            forged(make, path, value)
            for path, largest in numbers(make().DESCRIPTOR)
            for value in (largest, largest - 1, largest - 2, *((-1,) if largest != UINT32 else ()))
        ]
        told = await record(pair, **{kind: rows})
        assert told.stored + len(told.rejections) == len(rows)
        assert all(one.field for one in told.rejections)
    for is_pruned in (False, True):
        questions = await pair.questions()
        for group_by in ([], ["engine"], ["tool"], ["session"], ["day"], ["label:user"]):
            await questions.SummarizeUsage(questions_pb2.SummarizeUsageRequest(group_by=group_by))
        await questions.ListToolCalls(questions_pb2.ListToolCallsRequest(page_size=1000))
        await questions.ListSessionRecords(questions_pb2.ListSessionRecordsRequest(page_size=1000))
        session = questions_pb2.RowKey(id=f"usage.input_tokens {MAX_INT64}")
        asked = questions.GetSessionRecord(questions_pb2.GetSessionRecordRequest(session=session))
        assert await code_of(asked) == ("NOT_FOUND" if is_pruned else "OK")
        assert service.terminate() == 0
        leave_a_prune_with_full_sums(pair.db)
        service = pair.start_audit()
        await pair.until("SELECT count(*) FROM pruned WHERE finished_at IS NULL", [(0,)])
    administration = administration_pb2_grpc.AdministrationServiceStub(await pair.channel(service.address))
    for before_ms in (OLD_MS + 3 * HOUR_MS, OLD_MS + 4 * HOUR_MS):
        for dry_run in (True, False):
            prune = administration_pb2.PruneRequest(created_before_ms=before_ms, dry_run=dry_run)
            assert [response async for response in administration.Prune(prune)]
        await record(pair, model_requests=[cost_row(cost_micros=MAX_INT64)])
    assert pair.query(f"SELECT count(*) FROM cost_log WHERE created_at <= {OLD_MS}") == [(0,)]
    assert pair.query("SELECT max(input_tokens), max(cost_micros) FROM pruned") == [(MAX_INT64, MAX_INT64)]
