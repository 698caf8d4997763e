"""How long nobody takes rows when the replica that writes ends: `python -m tests.faults.replicas.failover [ROUNDS]`.

From the signal to the first batch that is acknowledged, sent again and again to the other replica over one connection,
as a gateway behind a balancer does.
"""

import random
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Literal

import grpc

from recording.channel.options import DIRECT
from tests.audit_svc.samples import audit_row, request
from tests.audit_svc.stubs import LedgerStub
from tests.faults.replicas.world import ReplicasWorld

End = Literal["killed", "stopped", "paused"]
TRY_AGAIN_SECONDS = 0.01
TRY_SECONDS = 0.5


def failover_seconds(rounds: int, end: End) -> list[float]:
    """Of so many ends of the writer: by SIGKILL, SIGTERM or SIGSTOP."""
    with ReplicasWorld(random.Random(0)) as world:
        world.start()
        return list(_measured(world, rounds, end))


def _measured(world: ReplicasWorld, rounds: int, end: End) -> Iterator[float]:
    for _ in range(rounds):
        writer = world.writer()
        other = next(replica for replica in world.replicas if replica is not writer)
        with grpc.insecure_channel(other.address, DIRECT) as channel:
            stub = LedgerStub(channel)
            _send(stub)
            began = time.monotonic()
            if end == "stopped":
                writer.signal(signal.SIGTERM)
            else:
                writer.kill() if end == "killed" else writer.pause()
            _send(stub)
            yield time.monotonic() - began
        if end == "paused":
            writer.wake()
        else:
            writer.kill()
            writer.start()


def _send(stub: LedgerStub) -> None:
    """Until a row is acknowledged."""
    while True:
        try:
            stub.RecordBatch(request(audit_row()), timeout=TRY_SECONDS)
        except grpc.RpcError:
            time.sleep(TRY_AGAIN_SECONDS)
        else:
            return


def main() -> None:
    """Prints median, 99th percentile and the longest of each end."""
    rounds = int(sys.argv[1]) if sys.argv[1:] else 20
    ends: list[End] = ["killed", "stopped", "paused"]
    for end in ends:
        seconds = failover_seconds(rounds, end)
        p99 = statistics.quantiles(seconds, n=100, method="inclusive")[98]
        print(f"{end:8} {rounds} times: p50 {statistics.median(seconds):.2f} s, p99 {p99:.2f} s, {max(seconds):.2f} s")


if __name__ == "__main__":
    main()
