"""Campaigns against two audit services on one PostgreSQL, while producers send."""

from collections.abc import Callable

from tests.faults.campaigns.choices import BEHAVIOURS, LEFT_BYTES
from tests.faults.replicas.replica import Replica
from tests.faults.replicas.world import ReplicasWorld
from tests.faults.world import World, wait_for

PRODUCERS, ROWS_PER_SECOND = 2, 300
"""Few, since a round lasts as long as a lease does, several times."""


def kill_writer(world: World) -> None:
    """kill -9 of whichever replica writes, twice."""
    replicas = _started(world)
    for _ in range(2):
        replicas.pause(0.1, 0.6)
        killed = replicas.writer()
        replicas.kill_replica(killed)
        replicas.writer(killed)
        replicas.wait_for_more_commits()
        killed.start()


def kill_standby(world: World) -> None:
    """kill -9 of the replica that passes on what it gets, twice."""
    replicas = _started(world)
    for _ in range(2):
        replicas.pause(0.1, 0.6)
        killed = replicas.standby()
        replicas.kill_replica(killed)
        replicas.wait_for_more_commits()
        killed.start()


def kill_postgres(world: World) -> None:
    """kill -9 of the database server and all its children, twice."""
    replicas = _started(world)
    for _ in range(2):
        replicas.pause(0.1, 0.6)
        replicas.kill_postgres()
        replicas.pause(0, 1)
        replicas.server.start()
        replicas.wait_for_more_commits()


def kill_all(world: World) -> None:
    """kill -9 of the database server, the replicas and the gateway."""
    replicas = _started(world)
    replicas.pause(0.1, 0.6)
    deaths: list[Callable[[], None]] = [
        replicas.kill_postgres,
        *(lambda dying=replica: replicas.kill_replica(dying) for replica in replicas.replicas),
    ]
    replicas.rng.shuffle(deaths)
    for die in deaths:
        die()
        replicas.pause(0, 0.1)
    replicas.server.start()


def kill_gateways(world: World) -> None:
    """kill -9 of gateways on one folder, whose ways to the replicas fail in all manners."""
    assert isinstance(world, ReplicasWorld)
    world.start()
    for behaviour in world.rng.sample(BEHAVIOURS, 3):
        world.proxy.behaviour = behaviour
        producer = world.start_producer(wait=False, rows_per_second=ROWS_PER_SECOND)
        world.pause(0.1, 0.8)
        if world.rng.random() < 0.5:
            world.proxy.cut()
        world.kill_producer(producer)
    world.proxy.behaviour = "pass"
    world.start_producer(rows_per_second=ROWS_PER_SECOND)


def pause_writer(world: World) -> None:
    """SIGSTOP of the writer in whatever it does; it wakes when another has written."""
    replicas = _started(world)
    for _ in range(2):
        replicas.pause(0.1, 0.5)
        paused = replicas.writer()
        paused.pause()
        replicas.writer(paused)
        replicas.wait_for_more_commits()
        paused.wake()
        replicas.pause(0, 0.5)


def cut_writer_from_database(world: World) -> None:
    """The writer's connections to the database say nothing more, or are refused."""
    replicas = _started(world)
    replicas.pause(0.1, 0.5)
    cut = replicas.writer()
    _cut(replicas, cut)
    replicas.writer(cut)
    replicas.wait_for_more_commits()
    _heal(cut)
    wait_for(cut.serves, "the replica never serves again")


def cut_standby_from_database(world: World) -> None:
    """The same of the standby: it does not serve, and the writer goes on."""
    replicas = _started(world)
    replicas.pause(0.1, 0.5)
    cut = replicas.standby()
    _cut(replicas, cut)
    replicas.wait_for_more_commits()
    wait_for(lambda: not cut.serves(), "a replica without a database says that it serves")
    _heal(cut)
    wait_for(cut.serves, "the replica never serves again")


def cut_replicas_from_each_other(world: World) -> None:
    """What a standby passes on gets no answer, or does not arrive."""
    replicas = _started(world)
    for behaviour in replicas.rng.sample(BEHAVIOURS[1:], 2):
        for replica in replicas.replicas:
            replica.from_others.behaviour = behaviour
        replicas.pause(0.1, 1)
        if replicas.rng.random() < 0.5:
            for replica in replicas.replicas:
                replica.from_others.cut()
    replicas.wait_for_more_commits()


def cut_gateways_from_replicas(world: World) -> None:
    """What gateways send gets no answer, or does not arrive, and connections are reset."""
    replicas = _started(world)
    for behaviour in replicas.rng.sample(BEHAVIOURS[1:], 2):
        replicas.proxy.behaviour = behaviour
        replicas.pause(0.1, 1)
        replicas.proxy.cut()


def database_disk_full(world: World) -> None:
    """The disk of the database server is full for a while."""
    assert isinstance(world, ReplicasWorld)
    world.start_on_small_disk()
    assert world.disk is not None
    world.start_producer(padding=2000)
    world.wait_for_rows()
    world.disk.fill(world.rng.randrange(LEFT_BYTES))
    wait_for(
        lambda: any("store.commit_failed" in replica.log for replica in world.replicas) or not world.server.is_running,
        "the database's disk was never full",
    )
    world.pause(0, 1)
    world.disk.empty()
    if not world.server.is_running:  # it had no room for its log
        world.server.start()
    world.wait_for_more_commits()


def _started(world: World) -> ReplicasWorld:
    assert isinstance(world, ReplicasWorld)
    world.start()
    for _ in range(PRODUCERS):
        world.start_producer(rows_per_second=ROWS_PER_SECOND)
    world.wait_for_rows()
    return world


def _cut(world: ReplicasWorld, replica: Replica) -> None:
    replica.to_database.behaviour = world.rng.choice(["black_hole", "refuse"])
    if replica.to_database.behaviour == "refuse":
        replica.to_database.cut()


def _heal(replica: Replica) -> None:
    replica.to_database.behaviour = "pass"
    replica.to_database.cut()
