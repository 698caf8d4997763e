"""Campaigns against producers, their spools, and the way of their rows."""

from collections.abc import Callable

from tests.faults.campaigns.choices import BEHAVIOURS
from tests.faults.world import World


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
