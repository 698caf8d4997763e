"""Every string of every row comes through one door: fitted to its field, clean, and without secrets."""

import ast
import random
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from demo.processes import REPOSITORY
from recording import redact
from recording.args_key import ArgsKey
from recording.calls import Decision, Failure, Scope, ToolCall, ToolResult, Usage
from recording.delivery.connection import encode_request
from recording.logger import Row
from recording.redact import exact
from recording.redact.patterns import TABLES
from recording.redact.text import redact_name
from recording.rows import (
    ROW_VERSION,
    build_audit_row,
    close_call,
    control_row,
    cost_row,
    decide,
    fit,
    open_call,
    session_row,
)
from recording.spool.reader import Batch, Position
from tests.recording.redact.samples import fill, pieces_of
from tests.support.examples import examples

CHARACTERS = {
    "AuditRow": {"id": 128, "session_id": 128, "engine": 64, "tool_name": 128, "trace_id": 32, "model": 256}
    | {"provider_call_id": 256, "turn_id": 128}
    | {"mcp_server.name": 64, "mcp_server.version": 64, "args_digest.key_id": 64}
    | {"decision.decided_by": 128, "decision.rule": 128, "decision.policy_digest": 128},
    "CostRow": {"id": 128, "session_id": 128, "turn_id": 128, "engine": 64, "model": 256, "requested_model": 256}
    | {"trace_id": 32},
    "ControlRow": {"id": 128, "principal": 128, "scope": 1_024, "policy_digest": 128, "stop_id": 128},
    "SessionRow": {"id": 128, "engine": 64, "model": 256, "labels": 256},
}
WHO = {"principal": 128, "on_behalf_of": 128, "parent_turn_id": 128, "agent.name": 64, "agent.version": 64}
CHARACTERS["AuditRow"] |= WHO
CHARACTERS["CostRow"] |= WHO
BYTES = {
    "AuditRow": {"args_summary": 4_096, "error": 2_048, "decision.reason": 256},
    "CostRow": {"error": 2_048},
    "SessionRow": {},
    "ControlRow": {"reason": 256},
}
LABEL_KEY = 64
UNSHOWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]")


def rows_with(text: str) -> Iterator[Row]:
    """A row of each kind, with text in every place that takes one."""
    scope = Scope(text, text, text, text, text, text, text, (text, text), parent_turn_id=text)
    call = ToolCall(text, text, text, text)
    intent = open_call(call, scope, key=ArgsKey("k", b"k"), mcp_server=(text, text))
    asked = Decision(common_pb2.DECISION_SOURCE_PERSON)
    decide(intent, replace(asked, rule=text, policy_digest=text, reason=text, decided_by=text))
    yield intent
    yield close_call(intent, ToolResult(text, error=text, rule=text))
    yield control_row(
        audit_pb2.CONTROL_KIND_STOP, scope=text, principal=text, policy_digest=text, reason=text, stop_id=text
    )
    yield build_audit_row(call, ToolResult(text, error=text))
    yield cost_row(scope, Usage(), model=text, cost_micros=None, created_at_ms=1, duration_ms=1, failure=Failure(text))
    yield session_row(
        text,
        1,
        common_pb2.SESSION_STATUS_IDLE,
        engine=text,
        model=text,
        turns=1,
        tool_calls=1,
        usage=common_pb2.Usage(requests=1),
        labels={text: text, text + "x": text},
        created_at_ms=1,
        updated_at_ms=1,
    )


def strings_of(row: Message, path: str = "") -> Iterator[tuple[str, str]]:
    """Each string field of a row by its descriptor, whether it is set or not."""
    for field in row.DESCRIPTOR.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            yield f"{path}{field.name}", getattr(row, field.name)
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            yield from strings_of(getattr(row, field.name), f"{path}{field.name}.")
        elif field.message_type is not None:
            for key, value in getattr(row, field.name).items():
                yield f"{field.name}.key", key
                yield field.name, value


def check(row: Row) -> None:
    kind = type(row).__name__
    for name, value in strings_of(row):
        if name in BYTES[kind]:
            assert len(value.encode()) <= BYTES[kind][name], (kind, name)
        else:
            limit = LABEL_KEY if name == "labels.key" else CHARACTERS[kind][name]
            assert len(value) <= limit, (kind, name)
        assert not UNSHOWABLE.search(value), (kind, name)
    assert row == type(row).FromString(row.SerializeToString())


@pytest.mark.parametrize("kind", CHARACTERS)
def test_each_string_field_of_each_row_has_a_limit_here(kind):
    """A new field is seen by whoever adds it: it needs its line above, and its way through rows.fit."""
    row = getattr(audit_pb2, kind)()
    maps = {
        field.name
        for field in row.DESCRIPTOR.fields
        if field.message_type and field.message_type.GetOptions().map_entry
    }
    assert maps | {name for name, _ in strings_of(row)} == CHARACTERS[kind].keys() | BYTES[kind].keys()


@pytest.mark.long
@settings(max_examples=examples(150), deadline=None)
@given(
    st.one_of(
        st.text(st.characters(codec=None), max_size=60),
        st.sampled_from(
            ["m" * 300, "x" * 10_000, "\ud800" * 300, "\x1b[2J\x00", "é" * 5_000, "\U0001f600" * 3_000, ""]
        ),
    )
)
def test_whatever_text_others_chose_each_row_fits_and_can_be_written(text):
    for row in rows_with(text):
        check(row)


@settings(max_examples=examples(150), deadline=None)
@given(
    example=st.sampled_from([pattern.example for table in TABLES[:2] for pattern in table.patterns.values()]),
    seed=st.integers(0, 2**32),
    around=st.sampled_from(["", " ", "x" * 200 + " ", "team-"]),
)
def test_a_secret_in_any_text_is_in_no_row(example, seed, around):
    text, secrets = fill(example, random.Random(seed))
    for row in rows_with(around + text):
        for name, value in strings_of(row):
            if name != "provider_call_id":  # has a rule of its own, see redact_call_id
                assert not any(pieces_of(secret, value) for secret in secrets), (type(row).__name__, name)


@pytest.mark.parametrize(
    "text",
    [
        "https://bob:a1b2c3d4e5@git.example.com/o/r",
        "postgres://app:a1b2c3d4e5@db/shop",
        "https%3A%2F%2Fbob%3Aa1b2c3d4e5%40git.example.com",
        "password%3Da1b2c3d4e5",
        "p\\u0061ssword=a1b2c3d4e5",
        "pass\u200bword=a1b2c3d4e5",
    ],
)
def test_a_password_in_a_url_or_written_otherwise_is_in_no_row(text):
    """Whoever labels a session with its repository gives the URL that they cloned."""
    for row in rows_with(text):
        assert not [name for name, value in strings_of(row) if "a1b2c3d4e5" in value], type(row).__name__


@pytest.mark.parametrize("key", ["db_password", "api_key", "GITHUB_TOKEN", "gitlab.token"])
def test_what_a_label_s_key_says_is_a_secret_is_in_no_row(key):
    assert "a1b2c3d4e5" not in str(session_of("s", **{key: "a1b2c3d4e5"}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("repository", url) for url in ("https://git.example.com/o/r?b=1#l2", "git@git.example.com:o/r.git")),
        *(("user", name) for name in ("spiffe://example.org/ns/ci/sa/bot", "https://id.example.com#ada", "DOM\\user")),
        *((key, "PROJ-12") for key in ("ticket-key", "key", "session", "author", "token_budget")),
    ],
)
def test_a_label_that_is_no_secret_stays(key, value):
    """Queries find it by its whole text."""
    assert session_of("s", **{key: value}).labels == {key: value}


def test_a_secret_of_the_process_is_in_no_row(monkeypatch):
    monkeypatch.setattr(exact, "_forms", ())
    secret = "abcdefghijklmnop"
    assert secret in str(list(rows_with(secret))), "names that it knew before are not remembered"
    redact.protect([secret])
    for text in (secret, f"call_{secret}"):
        assert not any(secret in str(row) for row in rows_with(text))


def test_two_ids_that_do_not_fit_stay_two():
    """Of two rows with one id the ledger would keep one."""
    key = "sk-ant-" + "a1B2" * 12
    for one, other in (("x" * 200, "x" * 199), (key, key + "Z9"), ("a\x00", "a\x01")):
        first, second = (session_of(text).id for text in (one, other))
        assert first != second
        assert session_of(one).id == first


def test_a_batch_says_of_which_version_its_rows_are():
    covered, batch = audit_pb2.SequenceRange(producer_id="p", first=1, last=1), Batch(1, Position(1, 0, 2))
    request = audit_pb2.RecordRequest.FromString(encode_request(covered, batch))
    assert (request.range, request.row_version) == (covered, ROW_VERSION)


def session_of(session_id: str, **labels: str) -> audit_pb2.SessionRow:
    return session_row(
        session_id,
        1,
        common_pb2.SESSION_STATUS_IDLE,
        engine="",
        model="",
        turns=0,
        tool_calls=0,
        usage=common_pb2.Usage(),
        labels=labels,
        created_at_ms=1,
        updated_at_ms=1,
    )


def test_labels_that_become_alike_stay_two_and_more_than_a_row_takes_are_left_out():
    keys = {"sk-ant-" + "a1B2" * 12: "1", "sk-ant-" + "c3D4" * 12: "2"}
    assert sorted(session_of("s", **keys).labels.values()) == ["1", "2"]
    assert len(session_of("s", **{f"k{number}": "v" for number in range(40)}).labels) == 32


@pytest.mark.parametrize("told", ["the server says: secret plans", "No", "model 'x'", "", "a" * 65, "naïve"])
def test_a_sentence_is_no_code(told):
    row = cost_row(
        Scope("s", "e"), Usage(), model="", cost_micros=0, created_at_ms=1, duration_ms=1, failure=Failure(told, 500)
    )
    assert row.error == "unknown, HTTP 500"


@pytest.mark.long
@pytest.mark.parametrize("kind", ["AuditRow", "CostRow", "SessionRow"])
def test_rows_are_built_in_one_place(kind):
    """What a spool tells of itself holds nobody's words, and without a record Claude's rows go to the client alone."""

    def builds(node: ast.AST) -> bool:
        return isinstance(node, ast.Call) and ast.unparse(node.func) == f"audit_pb2.{kind}"

    places = {
        path.relative_to(REPOSITORY).as_posix()
        for folder in ("recording", "gateway_svc", "clients/python/lib")
        for path in (REPOSITORY / folder).rglob("*.py")
        if any(builds(node) for node in ast.walk(ast.parse(path.read_text("utf-8"))))
    }
    allowed = {
        "AuditRow": {"recording/rows/tool_call.py", "recording/spool/gap.py", "gateway_svc/engines/claude/calls.py"},
        "CostRow": {"recording/rows/cost.py", "gateway_svc/engines/claude/bill.py"},
        "SessionRow": {"recording/rows/session.py"},
    }
    assert places == allowed[kind]


@given(st.text("0123456789abcdef", min_size=16, max_size=16), st.booleans())
def test_ids_of_spans_and_traces_are_as_redaction_leaves_them(text, is_trace):
    """They are not looked at, since each turn has new ones."""
    told = text * 2 if is_trace else text
    assert fit.identifier(told) == redact_name(told, 128) == told
