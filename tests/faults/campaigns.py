"""The campaigns: what each does to the pair in a round. Each ends when its fault is over or everything is dead."""

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recording.framing import HEADER, Record, scan
from recording.spool.records import FORM, ROW, decode_row
from recording.spool.segments import first_record
from tests.faults.gateway_world import GatewayWorld
from tests.faults.proxy import Behaviour
from tests.faults.sessions_world import SessionsWorld
from tests.faults.standing_log import LogPipe
from tests.faults.world import World, lost_lines, wait_for

LEFT_BYTES = 64 * 2**10
BEHAVIOURS: list[Behaviour] = ["pass", "delay", "drop_acks", "refuse"]


def kill_gateway(world: World) -> None:
    """kill -9 of the producer, three lives long, also while it opens its record."""
    world.start()
    for behaviour in world.rng.sample(BEHAVIOURS, 3):
        world.proxy.behaviour = behaviour
        producer = world.start_producer(wait=world.rng.random() < 0.7)
        world.pause(0, 0.25)
        world.kill_producer(producer)
    world.start_producer()
    world.pause(0.05, 0.1)


def kill_gateway_with_turns(world: World) -> None:
    """kill -9 of a whole gateway while turns run tools, three lives long."""
    assert isinstance(world, GatewayWorld)
    world.start()
    for behaviour in world.rng.sample(BEHAVIOURS, 3):
        world.proxy.behaviour = behaviour
        gateway = world.start_gateway()
        world.run_turns(gateway)
        world.pause(0.1, 0.6)
        world.kill_gateway(gateway)


def cut_turns(world: World) -> None:
    """Turns whose clients lose their connections again and again, and in some rounds their gateway."""
    assert isinstance(world, GatewayWorld)
    world.start()
    world.follow_turns()
    for _ in range(world.rng.randrange(3, 8)):
        world.pause(0.02, 0.3)
        world.cut_clients()
    if world.rng.random() < 0.4:
        world.replace_gateway()
        world.pause(0.02, 0.3)
        world.cut_clients()


def kill_audit(world: World) -> None:
    """kill -9 of the audit service while rows are sent to it."""
    world.start()
    world.start_producer()
    for _ in range(2):
        world.pause(0.05, 0.3)
        world.kill_audit()
        world.start_audit()


def kill_both(world: World) -> None:
    """kill -9 of both, in either order."""
    world.start()
    producer = world.start_producer()
    world.wait_for_rows()
    world.pause(0.05, 0.35)
    deaths: list[Callable[[], None]] = [world.kill_audit, lambda: world.kill_producer(producer)]
    world.rng.shuffle(deaths)
    for die in deaths:
        die()
        world.pause(0, 0.05)


def lost_acks(world: World) -> None:
    """Rows are stored and their acks never come; then the connection is cut."""
    world.start()
    world.start_producer()
    for _ in range(3):
        world.proxy.behaviour = "pass"
        world.pause(0.05, 0.15)
        world.proxy.behaviour = "drop_acks"
        world.pause(0.02, 0.15)
        world.wait_for_lost_acks()
        world.proxy.cut()


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


def black_hole(world: World) -> None:
    """Bytes vanish both ways, sometimes for longer than an ack may take; then the connection is cut, then refused."""
    world.start()
    world.start_producer()
    world.pause(0.05, 0.2)
    world.proxy.behaviour = "black_hole"
    world.pause(0.05, 0.8)
    world.proxy.behaviour = "refuse"
    world.proxy.cut()
    world.pause(0, 0.2)


def audit_disk_full(world: World) -> None:
    """The database's disk is full for a while; there is room again without a restart."""
    disk = world.small_disk(world.audit_folder)
    world.start()
    world.start_producer()
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
        world.start_producer()
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


def gateways_log(world: World) -> None:
    """Nobody reads a gateway's log any more, or it stands still; turns go on, and it ends as asked."""
    assert isinstance(world, GatewayWorld)
    world.start()
    log = LogPipe()
    gateway = world.start_gateway(log)
    world.run_turns(gateway)
    if world.rng.random() < 0.5:
        log.close()
    else:
        log.fill()
    world.wait_for_calls(20)
    world.terminate_gateway(gateway)
    log.close()


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


def strict_spool_disk_full(world: World) -> None:
    """The spool's disk of a gateway in mode strict is full for a while, in which it does not serve."""
    assert isinstance(world, GatewayWorld)
    disk = world.small_disk(world.state_dir / "spool")
    world.start()
    gateway = world.start_gateway(GATEWAY_AUDIT_MODE="strict", GATEWAY_HEALTH_SECONDS="3600")
    health = world.health_of(gateway)
    world.run_turns(gateway)
    world.pause(0, 0.3)
    health.unknown()
    disk.fill(world.rng.randrange(LEFT_BYTES))
    health.must_tell(serves=False, detail="the spool cannot be written", lasting=False)
    world.pause(0, 0.2)
    disk.empty()
    health.must_tell(serves=True)
    world.wait_for_calls(5)


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


def two_gateways(world: World) -> None:
    """Producers share a state directory; two are killed, so that the next has a folder to adopt besides its own."""
    world.start()
    world.proxy.behaviour = "black_hole"
    world.start_producer(wait=False)
    doomed = [world.start_producer(wait=world.rng.random() < 0.5) for _ in range(2)]
    world.pause(0.1, 0.3)
    for producer in doomed:
        world.kill_producer(producer)


def clock_backwards(world: World) -> None:
    """The producer's clock runs backwards, over a kill too."""
    world.start()
    producer = world.start_producer(clock_backwards=True)
    world.pause(0.1, 0.3)
    world.kill_producer(producer)
    world.start_producer(clock_backwards=True)
    world.pause(0.05, 0.15)


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


def lock_files_cleaned(world: World) -> None:
    """Somebody tidies lock files up, again and again, while gateways live, come and die on one folder."""
    world.start()
    world.proxy.behaviour = world.rng.choice(BEHAVIOURS)
    world.start_producer()
    doomed = world.start_producer()
    for number in range(4):
        world.pause(0.02, 0.1)
        for lock in world.state_dir.glob("spool/*/lock"):
            lock.unlink(missing_ok=True)
        world.start_producer(wait=world.rng.random() < 0.5)
        if number == 2:
            world.kill_producer(doomed)


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


def descriptors_run_out(world: World) -> None:
    """A gateway has no descriptor left, again and again, with the folders of dead ones to adopt."""
    world.start()
    world.proxy.behaviour = "refuse"
    doomed = [world.start_producer(padding=500, max_bytes=2**20) for _ in range(3)]
    world.pause(0.1, 0.3)
    for producer in doomed:
        world.kill_producer(producer)
    world.proxy.behaviour = world.rng.choice(BEHAVIOURS)
    world.start_producer(hogs_descriptors=True, padding=500, max_bytes=2**24)
    world.pause(0.5, 1)


def kill_gateway_in_sessions(world: World) -> None:
    """kill -9 of a gateway in the middle of turns, whose sessions go on in the next one, three lives long."""
    assert isinstance(world, SessionsWorld)
    world.start()
    for _ in range(3):
        gateway = world.start_gateway()
        world.run_turns(gateway)
        world.pause(0.05, 0.6)
        world.kill_gateway(gateway)


def faulty_writes_of_sessions(world: World) -> None:
    """The disk is full for a moment at any write of a session's files, or takes a few bytes at once; then kill -9."""
    assert isinstance(world, SessionsWorld)
    world.start()
    for kind in ("full", "short"):
        gateway = world.start_gateway(FAULTS_WRITES=kind)
        world.run_turns(gateway)
        world.pause(0.5, 1.5)
        world.kill_gateway(gateway)
        if kind == "full" and not world.failed:
            raise RuntimeError("no write was refused")


def large_session(world: World) -> None:
    """A conversation of 3 GiB goes on, and its gateway is killed while it does."""
    assert isinstance(world, SessionsWorld)
    world.start()
    world.begin_large_session(3 * 2**10 + 2)
    for _ in range(2):
        gateway = world.start_gateway()
        world.run_turns(gateway)
        world.pause(5, 10)
        world.kill_gateway(gateway)


@dataclass(frozen=True)
class Campaign:
    """A kind of round."""

    name: str
    inflict: Callable[[World], None]
    mounts: bool = False
    """Whether it needs a file system of its own."""
    world: type[World] = World
    once: bool = False
    """Whether it is played once, however many rounds there are."""


CAMPAIGNS = [
    Campaign("kill -9 of the gateway", kill_gateway),
    Campaign("kill -9 with turns running", kill_gateway_with_turns, world=GatewayWorld),
    Campaign("kill -9 in sessions that go on", kill_gateway_in_sessions, world=SessionsWorld),
    Campaign("sessions' disk full at any write, short writes", faulty_writes_of_sessions, world=SessionsWorld),
    Campaign("session of 3 GiB", large_session, world=SessionsWorld, once=True),
    Campaign("connections of turns cut", cut_turns, world=GatewayWorld),
    Campaign("kill -9 of the audit service", kill_audit),
    Campaign("kill -9 of both", kill_both),
    Campaign("lost acks", lost_acks),
    Campaign("slow store", slow_store),
    Campaign("black hole, then cut", black_hole),
    Campaign("audit service's disk full", audit_disk_full, mounts=True),
    Campaign("ledger and log on one full disk", full_disk_with_log, mounts=True),
    Campaign("log without a reader", log_without_reader),
    Campaign("log that stands still", standing_log),
    Campaign("gateway's log unread", gateways_log, world=GatewayWorld),
    Campaign("spool's disk full", spool_disk_full, mounts=True),
    Campaign("strict gateway's spool's disk full", strict_spool_disk_full, mounts=True, world=GatewayWorld),
    Campaign("kill -9, spool's disk full", spool_disk_full_and_kill, mounts=True),
    Campaign("spool at its bound", spool_bound),
    Campaign("damaged and torn spool", damaged_spool),
    Campaign("two gateways on one folder", two_gateways),
    Campaign("lock files cleaned away", lock_files_cleaned),
    Campaign("spool's folder taken away", spool_taken_away),
    Campaign("descriptors run out", descriptors_run_out),
    Campaign("clock going backwards", clock_backwards),
    Campaign("audit service's clock ten years ahead", audit_clock),
    Campaign("audit service's files moved or removed", audit_files_lost),
]


def _records(segment: Path) -> list[Record]:
    fd = os.open(segment, os.O_RDONLY)
    try:
        found = list(scan(fd, first_record(fd), segment.stat().st_size, 0, FORM))
    finally:
        os.close(fd)
    return [record for record in found if isinstance(record, Record)]
