"""Histograms made in SQL, merged from many and read again are those of the durations."""

import apsw
from hypothesis import given
from hypothesis import strategies as st

from audit_svc.store import histogram
from audit_svc.store.columns import MAX_INT64

EDGES = [max(0, (1 << bits) + off) for bits in range(63) for off in (-1, 0, 1)]
DURATIONS = st.integers(0, 2**37) | st.sampled_from([*EDGES, MAX_INT64])


def test_sql_finds_the_bucket_of_every_duration():
    connection = apsw.Connection(":memory:")
    sql = f"SELECT value, {histogram.bucket_sql('value')} FROM (SELECT ?1 AS value)"
    for duration in [*range(5000), *EDGES, MAX_INT64]:
        assert list(connection.execute(sql, (duration,))) == [(duration, histogram.bucket(duration))]


@given(st.lists(st.lists(DURATIONS, min_size=1), min_size=1))
def test_many_merged_at_once_are_the_histogram_of_all(groups):
    blobs = [histogram.to_blob(histogram.count(group)) for group in groups]
    sizes = "".join(f"{len(blob)}s" for blob in blobs)
    assert histogram.merged(sizes, b"".join(blobs)) == histogram.count([one for group in groups for one in group])


@given(st.dictionaries(st.integers(0, 527), st.integers(1, 2**40 - 1), min_size=1), st.sampled_from([0.01, 0.5, 1]))
def test_a_quantile_is_found_among_any_counts(counts, share):
    found = histogram.quantiles(histogram.of_buckets(counts.keys(), counts.values()), [share])
    seen, wanted = 0, sum(counts.values()) * share
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= wanted:
            assert found == [histogram.middle(bucket)]
            break
