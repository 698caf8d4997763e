"""Campaigns against a gateway of several workers."""

from tests.faults.sessions_world import SessionsWorld
from tests.faults.world import World

WORKERS = 2


def kill_workers_in_sessions(world: World) -> None:
    """kill -9 of a worker, of all workers, and of the supervisor, in the middle of turns, whose sessions go on."""
    assert isinstance(world, SessionsWorld)
    world.start()
    gateway = world.start_gateway(GATEWAY_WORKERS=str(WORKERS), GATEWAY_DRAIN_SECONDS="2")
    world.wait_for_workers(gateway, WORKERS)
    for killed in world.rng.sample([1, 1, WORKERS], 3):
        world.run_turns(gateway)
        world.pause(0.05, 0.6)
        world.kill_workers(gateway, killed)
    world.run_turns(gateway)
    world.pause(0.05, 0.6)
    world.kill_supervisor(gateway)
