"""Takes the campaigns in turn, and counts the rows.

`python -m tests.faults [--store postgres] [--rounds N] [--seed S] [--only NAME]`.
"""

import argparse
import random
import sys
import time
from dataclasses import dataclass

from tests.faults.campaigns import CAMPAIGNS, POSTGRES_CAMPAIGNS, Campaign
from tests.faults.ledger import Findings
from tests.faults.world import can_mount


@dataclass
class Line:
    """A line of the table."""

    name: str
    rounds: int = 0
    accepted: int = 0
    kills: int = 0
    forks: int = 0
    destroyed: int = 0
    lost: int = 0
    doubled: int = 0
    corrupt: int = 0
    unsealed: int = 0
    late: int = 0
    two_writers: int = 0
    health_asked: int = 0
    untrue: int = 0

    def add(self, other: "Line") -> None:
        """Adds another line's figures."""
        for name in vars(self):
            if name != "name":
                setattr(self, name, getattr(self, name) + getattr(other, name))


def run_round(campaign: Campaign, seed: str) -> tuple[Line, list[str]]:
    """One round, its figures and what is wrong. The same seed makes the same choices, though not the same timing."""
    with campaign.world(random.Random(seed)) as world:
        try:
            campaign.inflict(world)
            findings = world.settle()
        except Exception as error:  # noqa: BLE001 - a round that cannot be run to its end has shown nothing
            findings = Findings()
            findings.report("lost", [f"the round ended early: {type(error).__name__}: {error}"])
        counted = (findings.accepted, world.kills, world.forks, len(world.destroyed & world.journal().accepted))
    found = (
        findings.lost,
        findings.doubled,
        findings.corrupt,
        findings.unsealed,
        findings.late,
        findings.two_writers,
        findings.compared,
        findings.untrue,
    )
    return Line(campaign.name, 1, *counted, *found), findings.problems


ALL_ROUNDS = 100
"""From as many on, campaigns that are played once are played too; and where --only names no other."""


def main() -> int:
    """Runs the rounds; the exit code is 1 when a row was lost or doubled, anything corrupt, or health untrue."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--only", default="", help="the campaigns whose names hold this text")
    parser.add_argument("--store", choices=("sqlite", "postgres"), default="sqlite")
    options = parser.parse_args()
    began = time.monotonic()
    wanted = [
        campaign
        for campaign in (POSTGRES_CAMPAIGNS if options.store == "postgres" else CAMPAIGNS)
        if options.only in campaign.name
    ]
    campaigns = [campaign for campaign in wanted if can_mount() or not campaign.mounts]
    passed = failed = 0
    again = [campaign for campaign in campaigns if not campaign.once] or campaigns
    if options.rounds < ALL_ROUNDS:
        campaigns = again
    lines = {campaign.name: Line(campaign.name) for campaign in campaigns}
    for number in range(options.rounds):
        campaign = campaigns[number] if number < len(campaigns) else again[(number - len(campaigns)) % len(again)]
        seed = f"{options.seed}-{number}"
        line, problems = run_round(campaign, seed)
        lines[campaign.name].add(line)
        passed, failed = passed + (not problems), failed + bool(problems)
        for problem in problems:
            print(f"round {number} ({campaign.name}, seed {seed}): {problem}", flush=True)
    total = Line("all")
    for line in lines.values():
        total.add(line)
    columns = list(vars(total))
    print(f"{columns[0]:42}" + "".join(f"{column:>13}" for column in columns[1:]))
    for line in [*lines.values(), total]:
        print(f"{line.name:42}" + "".join(f"{value:>13,}" for value in list(vars(line).values())[1:]))
    for campaign in wanted:
        if campaign.name not in lines:
            why = f"from {ALL_ROUNDS} rounds on" if campaign.once else "this process may not mount a small file system"
            print(f"skipped: {campaign.name}: {why}")
    print(f"seed {options.seed}, {time.monotonic() - began:.0f} s")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
