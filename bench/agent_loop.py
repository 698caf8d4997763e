"""(d) A step of the agent loop with auditing on, against a bare loop, and with ledgers that do not answer."""

import statistics
from contextlib import ExitStack
from pathlib import Path

from bench.figures import Figure, Target, compare
from bench.loops import MAX_STEPS
from bench.services import LATE_SECONDS, black_hole, closed_port, late_ledger, model_server, start_ledger
from bench.workers import Worker

STEPS = 50
MANY_STEPS = MAX_STEPS
SHORT_TURNS = 4
"""Short turns for each long one."""
AS_MUCH = 1.1
"""Times that differ by no more than this, the noise of a turn, count as equal."""


def measure(place: Path, *, short: bool) -> list[Figure]:
    """The figures at 50 and 400 steps, and those of broken ledgers at 50."""
    with ExitStack() as stack:
        url = stack.enter_context(model_server(place))
        address = stack.enter_context(start_ledger(place)).address
        ledgers = {
            "agent": address,
            "stopped": f"127.0.0.1:{closed_port()}",
            "black-holed": stack.enter_context(black_hole()),
            f"answering after {LATE_SECONDS:.0f} s": stack.enter_context(late_ledger(address)),
        }
        workers = {name: stack.enter_context(Worker("bench.loops", url=url, loop=name)) for name in ("bare", "bytes")}
        for name, ledger in ledgers.items():
            folder = place / name.split()[0]
            folder.mkdir()
            options = {"url": url, "loop": name, "place": str(folder), "address": ledger}
            workers[name] = stack.enter_context(Worker("bench.loops", **options))
        broken = [name for name in ledgers if name != "agent"]
        run_by_turns(workers, STEPS, 1)
        three = {name: workers[name] for name in ("agent", "bare", "bytes")}
        few: dict[str, list[float]] = {name: [] for name in three}
        many: dict[str, list[float]] = {name: [] for name in three}
        for _ in range(2 if short else 12):
            for times, steps, rounds in ((few, STEPS, SHORT_TURNS), (many, MANY_STEPS, 1)):
                for name, measured in run_by_turns(three, steps, rounds).items():
                    times[name] += measured
        broken_times = run_by_turns({name: workers[name] for name in ("agent", *broken)}, STEPS, 10 if short else 80)
    # A turn of many steps takes as long as several short ones, whose mean is its match.
    matches = {
        name: [statistics.fmean(part) for part in batched(few[name], SHORT_TURNS)] for name in ("agent", "bytes")
    }
    for_bytes = [long - brief for long, brief in zip(many["bytes"], matches["bytes"], strict=True)]
    without_them = [ours - more for ours, more in zip(many["agent"], for_bytes, strict=True)]
    return [
        compare(
            f"(d) step at {STEPS} steps, against a bare loop", "ms", few["agent"], few["bare"], Target(max_ratio=2)
        ),
        compare(
            f"(d) step at {MANY_STEPS} steps, against a bare loop",
            "ms",
            many["agent"],
            many["bare"],
            Target(max_ratio=2),
        ),
        compare(
            f"(d) step at {MANY_STEPS} steps, less its further bytes, against {STEPS}",
            "ms",
            without_them,
            matches["agent"],
            Target(max_ratio=AS_MUCH),
        ),
        *(
            compare(
                f"(d) step with the ledger {name}, against normal",
                "ms",
                broken_times[name],
                broken_times["agent"],
                Target(max_ratio=1.05),
            )
            for name in broken
        ),
    ]


def batched(times: list[float], size: int) -> list[list[float]]:
    """Splits times into lists of this size."""
    return [times[first : first + size] for first in range(0, len(times), size)]


def run_by_turns(workers: dict[str, Worker], steps: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds per step of each worker's turns. The order of the workers changes each round."""
    names = list(workers)
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        names.append(names.pop(0))
        for name in names:
            times[name].append(workers[name].ask(steps=steps))
    return times
