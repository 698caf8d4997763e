"""Campaigns against a whole gateway, while turns run."""

from tests.faults.campaigns.choices import BEHAVIOURS, LEFT_BYTES
from tests.faults.gateway_world import GatewayWorld
from tests.faults.standing_log import LogPipe
from tests.faults.world import World


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
