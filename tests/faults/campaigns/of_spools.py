"""Campaigns against spools: full disks, damage, folders that go away."""

import os
import shutil
from pathlib import Path

from recording.framing import HEADER, Record, scan
from recording.spool.records import FORM, ROW, decode_row
from recording.spool.segments import first_record
from tests.faults.campaigns.choices import BEHAVIOURS, LEFT_BYTES
from tests.faults.world import World


def spool_disk_full(world: World) -> None:
    """The spool's disk is full for a while."""
    disk = world.small_disk(world.state_dir)
    world.start()
    world.start_producer(padding=500)
    world.pause(0.05, 0.15)
    disk.fill(world.rng.randrange(LEFT_BYTES))
    world.wait_for_refused_rows()
    disk.empty()
    world.pause(0.05, 0.3)


def spool_disk_full_and_kill(world: World) -> None:
    """kill -9 of the gateway while its spool's disk is full: no outcome may wait in memory alone."""
    disk = world.small_disk(world.state_dir)
    world.start()
    world.proxy.behaviour = world.rng.choice(["pass", "refuse"])
    producer = world.start_producer(padding=500)
    world.pause(0.05, 0.15)
    disk.fill(world.rng.randrange(LEFT_BYTES))
    world.wait_for_refused_rows()
    world.kill_producer(producer)
    disk.empty()
    world.start_producer()
    world.pause(0.05, 0.1)


def spool_bound(world: World) -> None:
    """The spool reaches its bound while nothing can be sent."""
    world.start()
    world.proxy.behaviour = "refuse"
    world.start_producer(padding=2000, max_bytes=2**20)
    world.wait_for_refused_rows()
    world.proxy.behaviour = "pass"
    world.pause(0.1, 0.3)


def damaged_spool(world: World) -> None:
    """Between two lives bits flip in some of the spool's records, and its tail is torn off."""
    world.start()
    world.proxy.behaviour = "refuse"
    producer = world.start_producer()
    world.wait_for_rows()
    world.pause(0.1, 0.25)
    world.kill_producer(producer)
    segment = max(world.state_dir.glob("spool/*/*.segment"))
    records = _records(segment)
    hit = world.rng.sample(records[:-1], min(3, len(records) - 1))
    data = bytearray(segment.read_bytes())
    for record in hit:
        data[record.stop - world.rng.randint(1, len(record.payload))] ^= 1 << world.rng.randrange(8)
    last = records[-1]
    size = HEADER.size + len(last.payload)
    segment.write_bytes(data[: last.stop - world.rng.randint(1, size - 1)])
    # The row of an intent that is damaged alone is whole; that of a lost outcome is told as interrupted.
    world.destroyed |= {decode_row(record.payload).id for record in [*hit, last] if record.kind == ROW}


def spool_taken_away(world: World) -> None:
    """The folder of a spool that lives, or its file, is removed or moved; the gateway has a second to notice."""
    world.start()
    world.proxy.behaviour = world.rng.choice(BEHAVIOURS)
    world.start_producer()
    world.wait_for_rows()
    left: list[Path] = []
    for number in range(2):
        world.pause(0.05, 0.2)
        # One that lost a file is sent from, and then removed; so it may still be there.
        (folder,) = [lock.parent for lock in world.state_dir.glob("spool/*/lock") if lock.parent not in left]
        left.append(folder)
        match world.rng.randrange(3):
            case 0:
                shutil.rmtree(folder)
            case 1:
                folder.rename(world.folder / f"aside-{number}")
            case _:
                max(folder.glob("*.segment")).unlink()
        world.wait_for_another_spool(folder)


def _records(segment: Path) -> list[Record]:
    fd = os.open(segment, os.O_RDONLY)
    try:
        found = list(scan(fd, first_record(fd), segment.stat().st_size, 0, FORM))
    finally:
        os.close(fd)
    return [record for record in found if isinstance(record, Record)]
