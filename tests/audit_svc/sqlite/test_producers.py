"""What the database alone shows of each producer: the highest number of its sequence, and what never came."""

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onrecord.audit.v1 import audit_pb2

from audit_svc.errors import InvalidRequest
from audit_svc.ledger.batch import read_batch
from audit_svc.ledger.numbers import stream_id, stream_of
from audit_svc.ledger.usage import Usage
from audit_svc.sql.write.producers import cover
from audit_svc.sqlite.write.inserts import Inserts
from tests.audit_svc.empty import empty_in_memory
from tests.audit_svc.samples import audit_row, batch, record_request


def gaps(connection: apsw.Connection, producer: str = "p") -> list[tuple[object, ...]]:
    query = "SELECT first_sequence, last_sequence FROM producer_gaps WHERE producer_id = ? ORDER BY 1"
    return list(connection.execute(query, (producer,)))


def highest(connection: apsw.Connection, producer: str = "p") -> object:
    return connection.execute("SELECT highest_sequence FROM producers WHERE id = ?", (producer,)).fetchall()[0][0]


P = "p", ""
ranges = st.tuples(st.integers(1, 40), st.integers(0, 8)).map(lambda pair: (pair[0], sum(pair)))


@pytest.mark.long
@given(st.lists(ranges, min_size=1, max_size=12))
def test_what_is_missing_is_exactly_what_no_batch_has_covered(batches):
    connection = empty_in_memory()
    seen: set[int] = set()
    for first, last in batches:
        cover(connection, P, first, last, 1)
        seen.update(range(first, last + 1))
        assert highest(connection) == max(seen)
        missing = [n for one, other in gaps(connection) for n in range(int(str(one)), int(str(other)) + 1)]
        assert missing == [n for n in range(1, max(seen)) if n not in seen]


def test_producers_are_told_apart_and_their_times_are_kept():
    connection = empty_in_memory()
    cover(connection, P, 1, 5, 100)
    cover(connection, ("q", ""), 3, 4, 200)
    cover(connection, P, 6, 6, 300)
    assert (gaps(connection, "p"), gaps(connection, "q")) == ([], [(1, 2)])
    assert list(connection.execute("SELECT * FROM producers ORDER BY id")) == [
        ("p", "", 6, 100, 300),
        ("q", "", 4, 200, 200),
    ]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"first": 2, "last": 4}, [(1, 1)]),
        ({"last": 4}, [(1, 3)]),
    ],
    ids=["range", "one number"],
)
def test_a_batch_covers_its_range_even_when_its_rows_are_rejected(fields, expected):
    connection = empty_in_memory()
    Inserts(connection).write([(batch(audit_row(id=""), **fields), Usage())], 1)
    assert (highest(connection), gaps(connection)) == (4, expected)


def test_clients_that_keep_no_sequence_leave_no_trace():
    connection = empty_in_memory()
    Inserts(connection).write([(batch(audit_row()), Usage())], 1)
    assert list(connection.execute("SELECT * FROM producers")) == []


@given(st.text(min_size=1), st.text(min_size=1).filter(lambda text: "/" not in text))
def test_a_stream_of_a_session_has_an_id_that_tells_both(session_id, stream):
    assert stream_of(stream_id(session_id, stream)) == (session_id, stream)


@pytest.mark.parametrize("producer_id", ["gateway-1", "gateway-1/0199", "session/0199", "session/", "sessions/a/b"])
def test_no_other_producer_is_taken_for_a_stream_of_a_session(producer_id):
    assert stream_of(producer_id) is None


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("session_id", {"session_id": ""}),
        ("session_id", {"session_id": "x" * 129}),
        ("session_id", {"session_id": "a\nb"}),
        ("stream", {"stream": ""}),
        ("stream", {"stream": "a/b"}),
        ("first", {"first": -1}),
        ("first", {"first": 5, "last": 4}),
    ],
)
def test_numbers_of_a_session_that_cannot_be_are_refused_with_the_field(field, wrong):
    numbers = audit_pb2.SessionNumbers(**{"session_id": "s", "stream": "a seq", "first": 1, "last": 2, **wrong})
    with pytest.raises(InvalidRequest) as refused:
        read_batch(record_request(session_numbers=[numbers]), 0)
    assert refused.value.field == f"session_numbers.{field}"
