"""Campaigns against the door for other agents."""

from tests.faults.campaigns.choices import BEHAVIOURS, LEFT_BYTES
from tests.faults.door_world import DoorWorld
from tests.faults.world import World


def kill_door(world: World) -> None:
    """kill -9 of the door between receipt and answer, with a ledger that is there, slow, silent, away or killed."""
    assert isinstance(world, DoorWorld)
    world.start()
    world.start_door()
    world.start_exporters()
    for _ in range(3):
        world.proxy.behaviour = world.rng.choice(BEHAVIOURS)
        world.wait_for_more_rows()
        world.pause(0.02, 0.3)
        world.kill_door()
        world.start_door()
    world.kill_audit()
    world.wait_for_more_rows()


def door_disk_full(world: World) -> None:
    """The disk of the door's spool is full for a while, and the door is killed meanwhile."""
    assert isinstance(world, DoorWorld)
    disk = world.small_disk(world.state_dir)
    world.start()
    world.start_door()
    world.start_exporters()
    world.proxy.behaviour = world.rng.choice(["pass", "refuse"])
    world.wait_for_more_rows()
    disk.fill(world.rng.randrange(LEFT_BYTES))
    world.wait_for_refusals()
    world.kill_door()
    disk.empty()
    world.start_door()
    world.wait_for_more_rows()
