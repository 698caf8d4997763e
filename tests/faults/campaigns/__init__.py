"""The campaigns: what each does to the pair in a round. Each ends when its fault is over or everything is dead."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.applications.world import ApplicationsWorld
from tests.faults.campaigns import (
    of_applications,
    of_audit,
    of_doors,
    of_gateways,
    of_producers,
    of_replicas,
    of_sessions,
    of_spools,
    of_workers,
)
from tests.faults.door_world import DoorWorld
from tests.faults.gateway_world import GatewayWorld
from tests.faults.replicas.world import ReplicasWorld
from tests.faults.sessions_world import EncryptedSessionsWorld, SessionsWorld
from tests.faults.world import World


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
    Campaign("kill -9 of the gateway", of_producers.kill_gateway),
    Campaign("kill -9 with turns running", of_gateways.kill_gateway_with_turns, world=GatewayWorld),
    Campaign("kill -9 in sessions that go on", of_sessions.kill_gateway_in_sessions, world=SessionsWorld),
    Campaign("kill -9 of workers and their supervisor", of_workers.kill_workers_in_sessions, world=SessionsWorld),
    Campaign(
        "sessions' disk full at any write, short writes", of_sessions.faulty_writes_of_sessions, world=SessionsWorld
    ),
    Campaign(
        "kill -9 in encrypted sessions that go on", of_sessions.kill_gateway_in_sessions, world=EncryptedSessionsWorld
    ),
    Campaign(
        "encrypted sessions' disk full at any write, short writes",
        of_sessions.faulty_writes_of_sessions,
        world=EncryptedSessionsWorld,
    ),
    Campaign("session of 3 GiB", of_sessions.large_session, world=SessionsWorld, once=True),
    Campaign("applications that fork, killed and frozen", of_applications.kill_and_freeze, world=ApplicationsWorld),
    Campaign("kill -9 of the door for other agents", of_doors.kill_door, world=DoorWorld),
    Campaign("the door's spool's disk full", of_doors.door_disk_full, mounts=True, world=DoorWorld),
    Campaign("connections of turns cut", of_gateways.cut_turns, world=GatewayWorld),
    Campaign("kill -9 of the audit service and its sealer", of_audit.kill_audit),
    Campaign("kill -9 of both", of_producers.kill_both),
    Campaign("lost acks", of_producers.lost_acks),
    Campaign("slow store", of_audit.slow_store),
    Campaign("black hole, then cut", of_producers.black_hole),
    Campaign("audit service's disk full", of_audit.audit_disk_full, mounts=True),
    Campaign("ledger and log on one full disk", of_audit.full_disk_with_log, mounts=True),
    Campaign("sealer that stands still in a read", of_audit.standing_sealer, mounts=True),
    Campaign("log without a reader", of_audit.log_without_reader),
    Campaign("log that stands still", of_audit.standing_log),
    Campaign("gateway's log unread", of_gateways.gateways_log, world=GatewayWorld),
    Campaign("spool's disk full", of_spools.spool_disk_full, mounts=True),
    Campaign("strict gateway's spool's disk full", of_gateways.strict_spool_disk_full, mounts=True, world=GatewayWorld),
    Campaign("kill -9, spool's disk full", of_spools.spool_disk_full_and_kill, mounts=True),
    Campaign("spool at its bound", of_spools.spool_bound),
    Campaign("damaged and torn spool", of_spools.damaged_spool),
    Campaign("two gateways on one folder", of_producers.two_gateways),
    Campaign("lock files cleaned away", of_producers.lock_files_cleaned),
    Campaign("spool's folder taken away", of_spools.spool_taken_away),
    Campaign("descriptors run out", of_producers.descriptors_run_out),
    Campaign("clock going backwards", of_producers.clock_backwards),
    Campaign("audit service's clock ten years ahead", of_audit.audit_clock),
    Campaign("audit service's files moved or removed", of_audit.audit_files_lost),
]

_REPLICAS: list[tuple[str, Callable[[World], None]]] = [
    ("kill -9 of the replica that writes", of_replicas.kill_writer),
    ("SIGSTOP of the writer, which wakes later", of_replicas.pause_writer),
    ("kill -9 of PostgreSQL", of_replicas.kill_postgres),
    ("writer cut off from PostgreSQL", of_replicas.cut_writer_from_database),
    ("kill -9 of the standby", of_replicas.kill_standby),
    ("standby cut off from PostgreSQL", of_replicas.cut_standby_from_database),
    ("kill -9 of gateways", of_replicas.kill_gateways),
    ("kill -9 of PostgreSQL and both replicas", of_replicas.kill_all),
    ("replicas cut off from each other", of_replicas.cut_replicas_from_each_other),
    ("gateways cut off from replicas", of_replicas.cut_gateways_from_replicas),
]
POSTGRES_CAMPAIGNS = [
    *(Campaign(name, inflict, world=ReplicasWorld) for name, inflict in _REPLICAS),
    Campaign("PostgreSQL's disk full", of_replicas.database_disk_full, mounts=True, world=ReplicasWorld),
]
"""Those of replicas on PostgreSQL."""
