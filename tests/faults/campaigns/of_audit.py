"""Campaigns against the audit service: its life, its disk, its log, its clock and its files."""

import os
import signal

from tests.faults.campaigns.choices import LEFT_BYTES
from tests.faults.standing_log import LogPipe
from tests.faults.world import World, lost_lines, wait_for

SLOW_ROWS = 300
"""A second: however long a campaign takes on a busy machine, the rows alone do not fill a small disk."""


def kill_audit(world: World) -> None:
    """kill -9 of the audit service while rows are sent to it."""
    world.start()
    world.start_producer()
    for _ in range(2):
        world.pause(0.05, 0.3)
        world.kill_audit()
        world.start_audit()


def slow_store(world: World) -> None:
    """Everything takes its time, and at times the audit service stands still."""
    world.start()
    world.proxy.behaviour = "delay"
    world.start_producer()
    for _ in range(3):
        world.pause(0.05, 0.15)
        os.kill(world.audit_pid, signal.SIGSTOP)
        world.pause(0.05, 0.15)
        os.kill(world.audit_pid, signal.SIGCONT)


def audit_disk_full(world: World) -> None:
    """The database's disk is full for a while; there is room again without a restart."""
    disk = world.small_disk(world.audit_folder)
    world.start()
    world.start_producer(rows_per_second=SLOW_ROWS)
    world.pause(0.05, 0.15)
    world.health.unknown()
    disk.fill(world.rng.randrange(LEFT_BYTES))
    world.wait_for_failed_commit()
    world.health.must_tell(serves=False, lasting=False)
    world.pause(0, 0.2)
    disk.empty()
    world.health.must_tell(serves=True)


def full_disk_with_log(world: World) -> None:
    """The disk that holds both the database and the audit service's log is full for a while."""
    disk = world.small_disk(world.audit_folder)
    with (world.audit_folder / "log").open("a+b", buffering=0) as log:
        world.start(log=log, AUDIT_LOG_LEVEL="debug")
        world.start_producer(rows_per_second=SLOW_ROWS)
        world.pause(0.05, 0.15)
        world.health.unknown()
        disk.fill()
        world.refused_calls()
        world.health.must_tell(serves=False, lasting=False)
        world.pause(0, 0.2)
        disk.empty()
        world.health.must_tell(serves=True)
        world.wait_for_stored_rows()
        world.terminate_audit()


def standing_sealer(world: World) -> None:
    """The sealer stands still in a read until the WAL has filled the disk. It goes on, or the service kills it."""
    world.small_disk(world.audit_folder)
    world.start()
    slow = world.start_producer(rows_per_second=SLOW_ROWS)
    world.wait_for_rows()
    sealer = world.stop_sealer_in_a_read()
    fast = world.start_producer()
    world.health.unknown()
    world.wait_for_failed_commit()
    world.health.must_tell(serves=False, lasting=False)
    for producer in (slow, fast):
        world.kill_producer(producer)
    world.health.unknown()  # it may have served for a moment, where the room was enough for all but a large commit
    if world.rng.random() < 0.5:
        os.kill(sealer, signal.SIGCONT)
    else:
        world.wait_for_log("seal.trouble")
    world.health.must_tell(serves=True)


def log_without_reader(world: World) -> None:
    """Nobody reads the audit service's log any more; what it loses is counted."""
    log = LogPipe()
    metrics = world.metrics_address()
    world.start(log=log, AUDIT_METRICS_LISTEN=metrics)
    world.start_producer()
    world.pause(0.05, 0.15)
    log.close()
    world.refused_calls()
    wait_for(lambda: lost_lines(metrics) > 0, "no lost line was counted")
    world.wait_for_stored_rows()
    world.terminate_audit()


def standing_log(world: World) -> None:
    """The audit service's log stands still, and clients without a token are told of in it."""
    log = LogPipe()
    world.start(log=log, **world.only_with_token())
    world.start_producer()
    world.pause(0.05, 0.15)
    log.fill()
    world.refused_calls()
    world.wait_for_stored_rows()
    world.terminate_audit()
    log.close()


def audit_clock(world: World) -> None:
    """The audit service's clock is ten years ahead at one start, two years behind at the next; rows older than 90 days
    are to be pruned.
    """
    world.start()
    world.start_producer()
    world.wait_for_rows()
    days = [3650, -730]
    world.rng.shuffle(days)
    for ahead in days:
        world.pause(0, 0.1)
        world.kill_audit()
        world.start_audit(AUDIT_RETENTION_DAYS="90", FAULTS_CLOCK_DAYS=str(ahead))
        if ahead > 0:
            world.wait_for_log("prune.failed")
            world.health.must_tell(serves=True, detail="days ahead")
        world.pause(0.05, 0.2)
    world.kill_audit()
    world.start_audit(AUDIT_RETENTION_DAYS="90")


def audit_files_lost(world: World) -> None:
    """The database's folder is moved away under the running service and comes back, or its file is removed, and is put
    back from a link before the next start.
    """
    world.start()
    world.start_producer()
    world.wait_for_rows()
    world.pause(0.05, 0.2)
    folder, elsewhere = world.audit_folder, world.audit_folder.with_name("elsewhere")
    world.health.unknown()
    if world.rng.random() < 0.5:
        folder.rename(elsewhere)
        world.wait_for_failed_commit()
        world.health.must_tell(serves=False)
        world.pause(0, 0.2)
        world.health.unknown()
        elsewhere.rename(folder)
        world.health.must_tell(serves=True)
        return
    elsewhere.mkdir()
    names = ["audit.db", "audit.db-wal"]
    for name in names:
        (elsewhere / name).hardlink_to(folder / name)
    (folder / world.rng.choice(names)).unlink()
    world.wait_for_failed_commit()
    world.health.must_tell(serves=False)
    world.pause(0, 0.2)
    world.kill_audit()
    for name in names:
        (elsewhere / name).replace(folder / name)
