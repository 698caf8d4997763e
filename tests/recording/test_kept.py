"""Segments whose rows are all acked stay on disk up to a size, and no spool sees them any more."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.processes import REPOSITORY
from recording.kept.folder import Kept, list_kept
from recording.kept.rows import acked_segments, read_batches, sample
from recording.spool import Folders, SpoolOptions
from recording.spool.records import decode_row, is_tool_call
from tests.recording.samples import crash, ids, intent, opened, read_all, segments_of, tool_call

MANY = 2**30


def resent(state_dir: Path) -> list[str]:
    """The ids of what would be sent again, in order."""
    return [
        decode_row(payload).id
        for _, batch in read_batches(state_dir / "spool", 100, 2**20)
        for payload in batch.payloads
    ]


def fill(state_dir: Path, rows: int, **options: object) -> None:
    """Rows that are taken and acked, in segments of 128 KiB, most of which the spool lets go of."""
    with opened(state_dir, max_bytes=2**20, sync_interval_ms=1, **options) as spool:
        for number in range(rows):
            spool.append(tool_call(number))
        assert len(read_all(spool)) == rows
        while len(segments_of(state_dir)) > 1:
            time.sleep(0.001)


def test_acked_segments_are_kept_in_order_and_are_no_part_of_the_spool(tmp_path: Path) -> None:
    fill(tmp_path, 4000, keep_acked_bytes=MANY)
    kept = list_kept(tmp_path / "spool")
    assert len(kept) > 1
    assert [segment.first for segment in kept] == sorted(segment.first for segment in kept)
    assert resent(tmp_path) == [f"call-{number}" for number in range(4000)]
    with opened(tmp_path, keep_acked_bytes=MANY) as spool:
        assert spool.depth == 0
        assert read_all(spool) == []
        assert spool.oldest_age_seconds() == 0
        assert spool.kept_bytes == sum(segment.path.stat().st_size for segment in kept)
        assert spool.spooled_bytes < 2**18
        assert spool.counters.missing == spool.counters.interrupted == spool.counters.lost == 0


def test_nothing_is_kept_where_nothing_is_to_be(tmp_path: Path) -> None:
    fill(tmp_path, 4000)
    assert not (tmp_path / "spool" / "kept").exists()


def test_the_oldest_go_first(tmp_path: Path) -> None:
    fill(tmp_path, 4000, keep_acked_bytes=150 * 2**10)
    kept = list_kept(tmp_path / "spool")
    assert sum(segment.path.stat().st_size for segment in kept) <= 150 * 2**10
    left = resent(tmp_path)
    assert 1000 < len(left) < 4000
    assert left == [f"call-{number}" for number in range(4000)][-len(left) :]
    Kept(tmp_path / "spool", 0).trim()
    assert list_kept(tmp_path / "spool") == []


def test_a_folder_that_is_sent_and_removed_leaves_its_rows(tmp_path: Path) -> None:
    with opened(tmp_path, keep_acked_bytes=MANY) as spool:
        for number in range(10):
            spool.append_intent(intent(number))
            spool.append(tool_call(number))
        producer_id = spool.id
    (adopted,) = Folders(tmp_path / "spool", SpoolOptions(keep_acked_bytes=MANY)).adopt(1)
    read_all(adopted)
    adopted.remove()
    ((found, batch),) = read_batches(tmp_path / "spool", 100, 2**20)
    assert (found, batch.first, batch.last, len(batch.payloads)) == (producer_id, 1, 20, 10)


def test_only_what_is_acked_is_read(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        for number in range(10):
            spool.append(tool_call(number))
        batch = spool.read(4, 2**20)
        assert batch is not None
        spool.ack(batch)
        assert resent(tmp_path) == [f"call-{number}" for number in range(4)]
        assert resent(crash(tmp_path)) == [f"call-{number}" for number in range(4)]


def test_damage_costs_no_row_beside_it(tmp_path: Path) -> None:
    fill(tmp_path, 2000, keep_acked_bytes=MANY)
    kept = list_kept(tmp_path / "spool")[0]
    data = bytearray(kept.path.read_bytes())
    data[5000] ^= 0xFF
    kept.path.write_bytes(data)
    left = resent(tmp_path)
    assert len(left) == len(set(left)) == 1999
    ranges = [(batch.first, batch.last) for _, batch in read_batches(tmp_path / "spool", 10_000, 2**24)]
    (before, after) = ranges
    assert (before[0], after[0], after[1]) == (1, before[1] + 2, 2000)


@pytest.mark.parametrize("what", ["damaged", "missing"])
def test_a_folder_whose_state_cannot_be_read_counts_as_not_acked(tmp_path: Path, what: str) -> None:
    with opened(tmp_path) as spool:
        spool.append(tool_call(1))
        read_all(spool)
    left = crash(tmp_path)
    (state,) = (left / "spool").glob("*/state")
    if what == "missing":
        state.unlink()
    else:
        state.write_bytes(os.urandom(1024))
    assert acked_segments(left / "spool") == []


def test_a_sample_has_the_last_row_and_others(tmp_path: Path) -> None:
    assert sample(tmp_path / "spool", 3, is_tool_call) == []
    fill(tmp_path, 3000, keep_acked_bytes=MANY)
    seen: set[str] = set()
    for _ in range(30):
        taken = sample(tmp_path / "spool", 3, is_tool_call)
        found = ids([decode_row(payload) for _, batch in taken for payload in batch.payloads])
        assert found[0] == "call-2999"
        assert len(found) <= 3
        seen.update(found)
    assert len(seen) > 30


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(1, 2000), st.randoms(use_true_random=False))
def test_batches_cover_each_number_once(
    tmp_path_factory: pytest.TempPathFactory, max_rows: int, max_bytes: int, chance: random.Random
) -> None:
    state_dir = tmp_path_factory.mktemp("kept")
    with opened(state_dir) as spool:
        for number in range(chance.randrange(1, 60)):
            if chance.random() < 0.3:
                spool.append_intent(intent(number))
            spool.append(tool_call(number, args_summary="x" * chance.randrange(200)))
        rows = read_all(spool)
        covered: list[int] = []
        sent: list[str] = []
        for _, batch in read_batches(state_dir / "spool", max_rows, max_bytes):
            covered += range(batch.first, batch.last + 1)
            sent += [decode_row(payload).id for payload in batch.payloads]
            assert len(batch.payloads) <= max_rows
        assert covered == list(range(1, len(covered) + 1)) == list(range(1, covered[-1] + 1))
        assert sent == ids(rows)


def numbers(found: list[str]) -> set[int]:
    """Those of the rows, without what says that the spool was full for a moment."""
    return {int(id_.removeprefix("call-")) for id_ in found if id_.startswith("call-")}


@pytest.mark.long
def test_kill_9_leaves_every_acked_row_in_one_place(tmp_path: Path) -> None:
    """Kills at moments that nobody chose: a row is in the spool's folder or kept, and none is taken for unsent."""
    program = Path(__file__).with_name("spool") / "acker.py"
    paths = os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "protos")))
    acked: set[int] = set()
    for round_ in range(4):
        first = round_ * 1_000_000
        with subprocess.Popen(
            [sys.executable, str(program), str(tmp_path), str(first)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
        ) as process:
            assert process.stdout is not None
            said = process.stdout.readline()
            time.sleep(random.uniform(0.2, 0.6))
            process.kill()
            said += process.stdout.read()
        acked |= set(range(first, int(said[: said.rfind(b"\n")].split(b"\n")[-1])))
        left = resent(tmp_path)
        assert len(left) == len(set(left))
        assert numbers(left) >= acked
    assert len(list_kept(tmp_path / "spool")) > 3
    with opened(tmp_path, keep_acked_bytes=MANY) as spool:
        assert not numbers(ids(read_all(spool))) & acked
        assert spool.counters.missing <= 4
