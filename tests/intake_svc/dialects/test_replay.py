"""Exports that are sent again, in another order, cut or damaged: the same rows, no exception, no content."""

from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from onrecord.audit.v1 import audit_pb2
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

from audit_svc.ledger.batch import read_batch
from intake_svc.dialects import Reading, codex, genai, read_logs, read_spans
from recording.row_version import ROW_VERSION
from tests.intake_svc.dialects.exports import SAMPLES, Export, read, sample, text
from tests.intake_svc.dialects.test_content import CANARY, attribute_lists, said

samples = st.sampled_from(SAMPLES)
texts = (
    st.sampled_from([CANARY, "", "\0", "9" * 400, "-1", "NaN", "true", "{", '{"command": []}', "é" * 300]) | st.text()
)
values = st.recursive(
    st.builds(AnyValue)
    | st.builds(AnyValue, string_value=texts)
    | st.builds(AnyValue, int_value=st.integers(-(2**63), 2**63 - 1))
    | st.builds(AnyValue, double_value=st.floats())
    | st.builds(AnyValue, bool_value=st.booleans())
    | st.builds(AnyValue, bytes_value=st.binary()),
    lambda inner: (
        st.builds(lambda each: AnyValue(array_value=ArrayValue(values=each)), st.lists(inner, max_size=3))
        | st.builds(
            lambda each: AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key=k, value=v) for k, v in each])),
            st.lists(st.tuples(texts, inner), max_size=3),
        )
    ),
    max_leaves=5,
)


def ids(*readings: Reading) -> set[str]:
    calls = chain.from_iterable(reading.calls for reading in readings)
    return {row.id for row in calls} | {row.id for reading in readings for row in reading.costs}


def items_of(export: Export):
    """The lists of log records and of spans."""
    return [scope.log_records for scope in export.logs.scope_logs] + [scope.spans for scope in export.spans.scope_spans]


def taken(reading: Reading) -> None:
    """The ledger takes the rows."""
    request = audit_pb2.RecordRequest(row_version=ROW_VERSION, tool_calls=reading.calls, model_requests=reading.costs)
    assert list(read_batch(request, now_ms=1_795_840_000_000).rejections) == []


@pytest.mark.parametrize("name", SAMPLES)
def test_an_export_that_is_sent_again_makes_the_same_bytes(name):
    first, second = read(sample(name)), read(sample(name))

    assert [row.SerializeToString() for row in first.calls] == [row.SerializeToString() for row in second.calls]
    assert [row.SerializeToString() for row in first.costs] == [row.SerializeToString() for row in second.costs]
    assert first == second


@pytest.mark.long
@given(samples, st.randoms(use_true_random=False))
def test_the_order_within_an_export_changes_no_row(name, random):
    export = sample(name)
    for items in items_of(export):
        order = list(items)
        random.shuffle(order)
        del items[:]
        items.extend(order)
    before, after = read(sample(name)), read(export)

    assert sorted(map(str, after.calls)) == sorted(map(str, before.calls))
    assert sorted(map(str, after.costs)) == sorted(map(str, before.costs))


@pytest.mark.long
@given(samples, st.data())
def test_an_export_that_is_cut_anywhere_makes_rows_of_the_same_ids(name, data):
    """Nothing is lost or doubled, however an exporter cuts its batches."""
    whole, head, tail = sample(name), sample(name), sample(name)
    for items, first, second in zip(items_of(whole), items_of(head), items_of(tail), strict=True):
        at = data.draw(st.integers(0, len(items)))
        del first[at:]
        del second[:at]
    pieces = [read(head), read(tail)]

    assert ids(*pieces) == ids(read(whole))
    assert sum(len(piece.costs) for piece in pieces) == len(read(whole).costs)
    assert sum(len(piece.calls) for piece in pieces) == len(read(whole).calls)


@pytest.mark.long
@given(samples, st.lists(st.tuples(st.integers(0), st.integers(0), values), min_size=1, max_size=8))
def test_values_of_any_type_raise_nothing_and_show_nothing(name, changes):
    """What is left are rows that the ledger takes, and no canary in them but where a command is shown."""
    export = sample(name)
    for n, m, value in changes:
        lists = [items for _, items in attribute_lists(export) if items]
        item = lists[n % len(lists)]
        item = item[m % len(item)]
        if item.key not in ("full_command", "file_path"):
            item.value.CopyFrom(value)
    reading = read(export)

    taken(reading)
    assert "canary" not in said(export)
    assert not any("fault" in reason for reason in reading.not_understood)


@pytest.mark.long
@given(samples, st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=20), st.integers(0))
def test_damaged_bytes_raise_nothing(name, changes, cut):
    export = sample(name)
    both: list[tuple[Any, Callable[[Any], Reading]]] = [(export.logs, read_logs), (export.spans, read_spans)]
    for message, reader in both:
        damaged = bytearray(message.SerializeToString())
        if not damaged:
            continue
        for at, byte in changes:
            damaged[at % len(damaged)] = byte
        data = bytes(damaged[: len(damaged) - cut % 40])
        try:
            parsed = type(message).FromString(data)
        except DecodeError:
            continue
        taken(reader(parsed))


def test_what_is_empty_gives_nothing():
    assert read_logs(ResourceLogs()) == read_spans(ResourceSpans()) == Reading()


def test_a_fault_of_ours_costs_the_item_alone(monkeypatch):
    def faulty(attributes):
        if attributes.text(("event.name",)) == "codex.tool_decision":
            raise ZeroDivisionError
        return codex._kind(attributes)

    monkeypatch.setattr(codex, "_HOW", replace(codex._HOW, kind=faulty))
    reading = read(sample("codex-0.171.0"))

    assert reading.not_understood == ("codex: its reading failed by a fault of ours",)
    assert len(reading.calls) == 1


@pytest.mark.parametrize(
    ("name", "engine"),
    [("ai-sdk-5.0.277", "aisdk"), ("traceloop-sdk-0.62.4", "traceloop"), ("google-adk-2.13.0", "genai")],
)
def test_a_fault_of_ours_is_told_by_the_dialect_whose_reading_failed(monkeypatch, name, engine):
    def faulty(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(genai, "of_span", faulty)

    assert set(read(sample(name)).not_understood) == {f"{engine}: its reading failed by a fault of ours"}


@pytest.mark.parametrize(
    ("mark", "engine"), [("traceloop.span.kind", "traceloop"), ("ai.operationId", "aisdk"), ("a.mark", "genai")]
)
def test_a_fault_of_ours_is_told_by_the_convention_that_comes_first_of_a_span(monkeypatch, mark, engine):
    def faulty(*_):
        raise ZeroDivisionError

    export = sample("google-adk-2.13.0")
    for scope in export.spans.scope_spans:
        for span in scope.spans:
            span.attributes.append(text(mark, "tool"))  # behind that of the conventions for generative AI
    monkeypatch.setattr(genai, "of_span", faulty)

    assert set(read(export).not_understood) == {f"{engine}: its reading failed by a fault of ours"}
