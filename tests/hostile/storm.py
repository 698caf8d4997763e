"""`python -m tests.hostile.storm [--minutes N] [--seed S]`: all peers that mean harm at once, honest turns, and kills.

In the first half both services are killed again and again. In the second half they stand, and a second gateway on their
state folder is killed. No row may be lost or doubled; of the services that stand, memory and descriptors must not grow,
and the honest turns of the gateway among them all end well. Health may tell of a late check only on a busy machine.
"""

import argparse
import random
import sys
import time

from tests.hostile.gauge import Gauge
from tests.hostile.storm_world import PEER_SECONDS, StormWorld

KILL_SECONDS = 20.0
SETTLED_SECONDS = 3.0
"""How long honest turns run alone before the second half is measured."""
SAMPLE_SECONDS = 0.5
REST_SECONDS = 70.0
"""How long the peers rest, at the beginning, in the middle and at the end of the second half, before memory at rest is
read: a service under load looks for cycles each minute, and gives back what it has freed each half minute."""
FLAT_MINUTES = 10
"""What is shorter has no quarter in which a service has come to rest."""
BUSY = ("RESOURCE_EXHAUSTED",)
"""What honest clients may be told of a service that others keep busy."""
PASSING = ("UNAVAILABLE", "CANCELLED", *BUSY)
"""What they may be told of one that is killed."""


def rest(gauges: list[Gauge], seconds: float) -> None:
    """Lets the peers rest, and reads what the services take of memory then."""
    time.sleep(seconds)
    for gauge in gauges:
        gauge.rest()


def storm(minutes: float, seed: int) -> list[str]:
    """Lets it rage, and prints its figures; what is wrong."""
    half = minutes * 30
    kill_seconds = min(KILL_SECONDS, half / 4)
    with StormWorld(random.Random(seed), min(PEER_SECONDS, half / 4)) as world:
        world.begin()
        began, doomed = time.monotonic(), ["audit", "standing", "second"]
        while time.monotonic() < began + half:
            time.sleep(world.rng.uniform(0.5, 1) * kill_seconds)
            world.kill(doomed[world.kills % 3])
        world.calm()
        for what in ("audit", "standing"):  # the second gateway is killed in the second half too
            world.kill(what)
        world.let_stand()
        time.sleep(SETTLED_SECONDS)
        assert world.standing is not None
        both = {"audit_svc": world.audit, "gateway_svc": world.standing}
        gauges = [Gauge(name, service, world.temporary) for name, service in both.items()]
        began, rest_seconds = time.monotonic(), min(REST_SECONDS, half / 8)
        for until in (began + half / 2, began + half):
            rest(gauges, rest_seconds)
            world.rage()
            killed = time.monotonic()
            while time.monotonic() < until:
                time.sleep(SAMPLE_SECONDS)
                for gauge in gauges:
                    gauge.sample()
                if time.monotonic() > killed + kill_seconds:
                    world.kill("second")
                    killed = time.monotonic()
            world.calm()
        rest(gauges, rest_seconds)
        wrong = [what for gauge in gauges for what in gauge.wrong(flat=minutes >= FLAT_MINUTES)]
        findings = world.settle()
        print(f"attacks: {dict(sorted(world.attacks.items()))}")
        print(f"honest turns at gateways that are killed: {dict(world.told)}")
        print(f"honest turns at the one that stands: {dict(world.told_standing)}")
        print(f"{findings.accepted:,} calls told, {world.kills} kills, {world.late()} answers of late checks")
        print(f"{findings.lost} lost, {findings.doubled} doubled, {findings.corrupt} corrupt, {findings.untrue} untrue")
        wrong += findings.problems + [f"a peer met {what}, {count} times" for what, count in world.unexpected.items()]
        strange = world.told.keys() - {"COMPLETED", *PASSING} | world.told_standing.keys() - {"COMPLETED", *BUSY}
        return wrong + [f"honest turns ended as {told}" for told in sorted(strange)]


def main() -> int:
    """The exit code is 1 when anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.storm")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    options = parser.parse_args()
    wrong = storm(options.minutes, options.seed)
    for what in wrong:
        print(what)
    print(f"seed {options.seed}: {'failed' if wrong else 'passed'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
