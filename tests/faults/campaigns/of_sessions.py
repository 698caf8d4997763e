"""Campaigns against sessions that go on."""

from tests.faults.sessions_world import SessionsWorld
from tests.faults.world import World


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
        world.wait_for_large_session()
        world.pause(0, 1)
        world.kill_gateway(gateway)
