"""Campaigns against applications that record with a Ledger, and whoever sends what they append."""

from tests.faults.applications.world import ApplicationsWorld
from tests.faults.campaigns.choices import BEHAVIOURS
from tests.faults.world import World


def kill_and_freeze(world: World) -> None:
    """Applications fork at any moment, from any thread; they, their children and their sender are killed and frozen.

    The ledger is down for a while.
    """
    assert isinstance(world, ApplicationsWorld)
    world.start()
    world.proxy.behaviour = world.rng.choice(BEHAVIOURS)
    world.start_sender()
    for _ in range(2):
        world.start_application()
    world.wait_for_rows()
    faults = [
        world.kill_application,
        world.kill_child,
        world.kill_sender,
        world.freeze_application,
        world.freeze_child,
        world.freeze_sender,
        world.fork_in_handler,
        world.take_ledger_down,
    ]
    for inflict in world.rng.sample(faults * 2, 8):
        world.pause(0.02, 0.2)
        inflict()
        world.proxy.behaviour = world.rng.choice(BEHAVIOURS)
        world.proxy.cut()
