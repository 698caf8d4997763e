"""Histograms made in SQL, merged from many and read again are those of the durations."""

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_svc.ledger import histogram
from audit_svc.ledger.columns import MAX_INT64

EDGES = [max(0, (1 << bits) + off) for bits in range(63) for off in (-1, 0, 1)]
DURATIONS = st.integers(0, 2**37) | st.sampled_from([*EDGES, MAX_INT64])


def test_sql_finds_the_bucket_of_every_duration():
    connection = apsw.Connection(":memory:")
    sql = f"SELECT value, {histogram.bucket_sql('value')} FROM (SELECT ?1 AS value)"
    for duration in [*range(5000), *EDGES, MAX_INT64]:
        assert list(connection.execute(sql, (duration,))) == [(duration, histogram.bucket(duration))]


COUNTS = st.sampled_from([1, 2**8 - 1, 2**8, 2**16 - 1, 2**16, 2**32, 2**37])


@pytest.mark.long
@given(
    st.lists(
        st.dictionaries(st.integers(0, 527) | st.integers(0, 40), COUNTS | st.integers(1, 300), min_size=1),
        min_size=1,
        max_size=8,
    )
)
def test_many_merged_by_the_bytes_of_their_counts_are_the_histogram_of_all(groups):
    by_width: dict[int, list[bytes]] = {}
    for counts in groups:
        blob = histogram.to_blob(histogram.of_buckets(counts.keys(), counts.values()))
        assert blob[0] == next(width for width in (1, 2, 5) if max(counts.values()) < 1 << (8 * width))
        assert len(blob) == 1 + blob[0] * (max(counts) + 1)
        assert histogram.from_blob(blob) == histogram.of_buckets(counts.keys(), counts.values())
        by_width.setdefault(blob[0], []).append(blob[1:])
    merged = sum(
        histogram.merged("".join(f"{len(one) // width * 5}s" for one in many), bytes((width,)) + b"".join(many))
        for width, many in by_width.items()
    )
    assert merged == sum(histogram.of_buckets(counts.keys(), counts.values()) for counts in groups)


@given(st.lists(DURATIONS))
def test_a_histogram_counts_each_duration_in_its_bucket(durations):
    assert histogram.count(durations) == sum(1 << (40 * histogram.bucket(one)) for one in durations)


@given(st.dictionaries(st.integers(0, 527), st.integers(1, 2**40 - 1), min_size=1), st.sampled_from([0.01, 0.5, 1]))
def test_a_quantile_is_found_among_any_counts(counts, share):
    found = histogram.quantiles(histogram.of_buckets(counts.keys(), counts.values()), [share])
    seen, wanted = 0, sum(counts.values()) * share
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= wanted:
            assert found == [histogram.middle(bucket)]
            break
