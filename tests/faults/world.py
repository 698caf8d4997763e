"""One round's world: an audit service, a proxy before it, producers that come and go, and a folder that holds all."""

import hashlib
import multiprocessing
import os
import random
import re
import secrets
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Self

import apsw
import grpc
from onrecord.audit.v1 import audit_pb2

from audit_svc.sqlite.open.wal_readers import wal_readers
from demo.processes import Service, start_service
from recording.channel.options import DIRECT
from recording.kept.folder import FOLDER as KEPT
from tests.faults.health_watch import HealthWatch
from tests.faults.ledger import Findings, Journal, examine
from tests.faults.producer import GRACE_SECONDS, PRODUCER_NAME, Ended, Orders, run
from tests.faults.proxy import Proxy
from tests.faults.seal import is_sealed, judge_seal
from tests.faults.standing_log import LogPipe
from tests.support.ports import own_port
from tests.support.processes import children_of, has_ended, is_stopped

AUDIT = "tests.faults.audit_service"
SEAL_SECONDS = "0.05"
REST_SECONDS, PATIENCE_SECONDS = 1.0, 180.0
"""Within how long a ledger at rest should be sealed, and must be."""
REFUSED_CALLS = 50
RECORD_BATCH = f"/{audit_pb2.DESCRIPTOR.services_by_name['AuditService'].full_name}/RecordBatch"
REFUSALS = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAUTHENTICATED)

# Children of one process that has imported everything: a life costs a fork, not the imports.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.faults.producer"])


class Producer:
    """A producer's process. It has opened its record when this is made."""

    def __init__(self, orders: Orders, *, wait: bool) -> None:
        self._control, theirs = _FORKS.Pipe()
        self._process = _FORKS.Process(target=run, args=(orders, theirs), daemon=True)
        self._process.start()
        theirs.close()
        if wait:
            self._receive()

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process.pid is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.join()
        self._control.close()

    def drain(self) -> Ended:
        """Has it stop recording, deliver everything, and end."""
        self._control.send("drain")
        while not isinstance(ended := self._receive(), Ended):
            pass
        self._process.join()
        self._control.close()
        return ended

    def _receive(self) -> Any:
        if not self._control.poll(2 * GRACE_SECONDS):
            raise TimeoutError("a producer does not answer")
        return self._control.recv()


class World:
    """Made for one round. As a context manager it leaves nothing behind."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.kills = 0
        self.forks = 0
        self.destroyed: set[str] = set()
        self._stack = ExitStack()
        self.folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="onrecord-faults-")))
        self.state_dir = self.folder / "gateway"
        self.audit_folder = self.folder / "audit"
        self._journal = self.folder / "journal"
        self._audit: Service | None = None
        self._audit_address = f"127.0.0.1:{self._stack.enter_context(own_port())}"
        self.health = HealthWatch(self._audit_address)
        self._stack.callback(self.health.close)
        self._producers: list[Producer] = []
        self._lives = 0
        self._token = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for producer in list(self._producers):
            producer.kill()
        self._stack.close()

    def start(self, *, log: LogPipe | IO[bytes] | None = None, **settings: str) -> None:
        """Starts the audit service and the proxy."""
        self.start_audit(log=log, **settings)
        self.proxy = self._stack.enter_context(Proxy(self._audit_address))

    def start_audit(self, *, log: LogPipe | IO[bytes] | None = None, **settings: str) -> None:
        """Starts the audit service, always at the same address, and waits until its health says that it serves."""
        self.health.unknown()
        database = str(self.audit_folder / "audit.db")
        env = {"AUDIT_LISTEN": self._audit_address, "AUDIT_DB": database, "AUDIT_SEAL_SECONDS": SEAL_SECONDS}
        env |= settings
        if isinstance(log, LogPipe):
            service = log.start(AUDIT, env, "serve")
        else:
            service = start_service(AUDIT, env, "serve", log=log)
        self._audit = self._stack.enter_context(service)
        self.health.must_tell(serves=True)

    @property
    def audit_pid(self) -> int:
        """Of the audit service that runs."""
        assert self._audit is not None
        return self._audit.pid

    def kill_audit(self) -> None:
        """SIGKILL to the audit service, and before it to its sealer as often as not, which ends with it anyway.

        Raises:
            TimeoutError: the sealer has not ended.
        """
        assert self._audit is not None
        self.health.unknown()
        sealers = children_of(self._audit.pid)
        if self.rng.random() < 0.5:
            for sealer in sealers:
                with suppress(ProcessLookupError):
                    os.kill(sealer, signal.SIGKILL)
        self._audit.kill()
        self._audit = None
        self.kills += 1
        wait_for(lambda: all(map(has_ended, sealers)), "the sealer of a dead service goes on", PATIENCE_SECONDS)

    def stop_sealer_in_a_read(self) -> int:
        """SIGSTOP to the sealer while it holds the WAL; its process id."""
        assert self._audit is not None
        audit, database = self._audit, self.audit_folder / "audit.db"
        stopped: list[int] = []

        def is_in_a_read() -> bool:
            for sealer in children_of(audit.pid):
                if sealer not in wal_readers(database):
                    continue
                os.kill(sealer, signal.SIGSTOP)
                wait_for(lambda: is_stopped(sealer), "a sealer cannot be stopped")  # noqa: B023 - called here
                if sealer in wal_readers(database):
                    stopped.append(sealer)
                    return True
                os.kill(sealer, signal.SIGCONT)
            return False

        wait_for(is_in_a_read, "no sealer reads", PATIENCE_SECONDS, again=0.001)
        return stopped[0]

    def rest_and_kill(self) -> float:
        """Waits until all rows are sealed, kills the audit service, and returns for how many seconds it had to rest."""
        began, kills = time.monotonic(), self.kills
        with suppress(TimeoutError):  # judge_seal() tells what is not
            wait_for(lambda: is_sealed(self.audit_folder / "audit.db"), "", PATIENCE_SECONDS)
        rested = time.monotonic() - began
        self.kill_audit()
        self.kills = kills
        return rested

    def judge_seal(self, findings: Findings, rested: float) -> None:
        """Reports what does not fit its seal, and whether it took long. rested: see rest_and_kill()."""
        findings.late = int(rested > REST_SECONDS)
        judge_seal(self.audit_folder / "audit.db", findings)

    def terminate_audit(self) -> None:
        """SIGTERM to the audit service, which must end as asked, whatever has become of its log.

        Raises:
            RuntimeError: it ended by force, or with an error.
        """
        assert self._audit is not None
        self.health.unknown()
        code, self._audit = self._audit.terminate(), None
        if code != 0:
            raise RuntimeError(f"the audit service ended with exit code {code}")

    def start_producer(self, *, wait: bool = True, **orders: Any) -> Producer:
        """A producer of the state directory; without wait it may not have opened its record yet."""
        self._lives += 1
        where = (self.state_dir, self.proxy.address, self._journal, f"life-{self._lives}")
        producer = Producer(Orders(*where, token=self._token, **orders), wait=wait)
        self._producers.append(producer)
        return producer

    def kill_producer(self, producer: Producer) -> None:
        """SIGKILL to a producer."""
        self._producers.remove(producer)
        producer.kill()
        self.kills += 1

    def pause(self, least: float, most: float) -> None:
        """Sleeps for a random time, in seconds."""
        time.sleep(self.rng.uniform(least, most))

    def journal(self) -> Journal:
        """What the producers have done so far."""
        return Journal.read(self._journal)

    def wait_for_rows(self) -> None:
        """Until rows were accepted: a producer that has opened its record may have had no turn since."""
        wait_for(lambda: bool(self.journal().accepted), "no row was accepted")

    def wait_for_another_spool(self, folder: Path) -> None:
        """Until its producer goes on in another folder than this one, and has a row there."""
        others = self.state_dir / "spool"
        wait_for(
            lambda: any(segment.parent not in {folder, others / KEPT} for segment in others.glob("*/*.segment")),
            "no other folder was made",
        )

    def refused_calls(self) -> None:
        """Calls of a stranger, each of which the log of the audit service tells; each is answered.

        Raises:
            TimeoutError: one was not.
        """
        with grpc.insecure_channel(self._audit_address, DIRECT) as channel:
            method: Any = channel.unary_unary(RECORD_BATCH)
            for call in [method.future(b"no message", timeout=60) for _ in range(REFUSED_CALLS)]:
                error = call.exception()
                if not isinstance(error, grpc.RpcError) or error.code() not in REFUSALS:
                    raise TimeoutError(f"a call that is to be refused was answered otherwise: {error}")

    def only_with_token(self) -> dict[str, str]:
        """The audit service's settings that let in whoever has the token, which producers have from now on."""
        path, self._token = self.folder / "callers.toml", secrets.token_urlsafe(32)
        digest = hashlib.sha256(self._token.encode()).hexdigest()
        path.write_text(f'[[callers]]\nname = "{PRODUCER_NAME}"\nroles = ["producer"]\nsha256 = "{digest}"\n')
        path.chmod(0o600)
        return {"AUDIT_TOKENS_FILE": str(path)}

    def metrics_address(self) -> str:
        """An address for the metrics of the audit service."""
        return f"127.0.0.1:{self._stack.enter_context(own_port())}"

    def wait_for_stored_rows(self) -> None:
        """Until the ledger has committed more rows than now."""
        database = apsw.Connection(str(self.audit_folder / "audit.db"), flags=apsw.SQLITE_OPEN_READONLY)
        with closing(database):
            stored = "SELECT max(rowid) FROM tool_call_log"
            ((before,),) = database.execute(stored)
            wait_for(lambda: next(database.execute(stored))[0] != before, "nothing was committed any more")

    def wait_for_lost_acks(self) -> None:
        """Until the proxy has kept acks to itself."""
        wait_for(lambda: self.proxy.swallowed_bytes > 0, "no ack was lost")

    def wait_for_refused_rows(self) -> None:
        """Until a spool has refused rows."""
        wait_for(lambda: len(self.journal().dropped) >= 10, "the spool was never full")

    def wait_for_failed_commit(self) -> None:
        """Until the audit service could not commit."""
        audit = self._audit
        assert audit is not None
        wait_for(lambda: "store.commit_failed" in audit.stderr_text(), "the database's disk was never full")

    def wait_for_log(self, event: str) -> None:
        """Until the audit service has logged event."""
        audit = self._audit
        assert audit is not None
        wait_for(lambda: event in audit.stderr_text(), f"the audit service never logged {event}")

    def settle(self) -> Findings:
        """Starts again what is dead, heals the network, delivers everything, kills the audit service, and looks."""
        self.proxy.behaviour = "pass"
        if self._audit is None:
            self.start_audit()
        if self._producers:
            self.wait_for_rows()
        ended = [producer.drain() for producer in self._take_producers()]
        # Takes one dead producer's folder as its own, and adopts the others.
        self.start_producer(rows_per_second=0)
        ended += [producer.drain() for producer in self._take_producers()]
        self.health.must_tell(serves=True)
        rested = self.rest_and_kill()
        findings = examine(self.audit_folder / "audit.db", self.journal(), frozenset(self.destroyed))
        self.judge_seal(findings, rested)
        self.judge_health(findings)
        undrained = (each.counters for each in ended if not each.drained)
        findings.report("lost", (f"a spool that could not be drained: {counters}" for counters in undrained))
        if any(each.counters["rejected"] for each in ended):
            findings.report("lost", ["rows in a dead-letter file"])
        if not findings.accepted:
            findings.report("lost", ["a round that accepted nothing shows nothing"])
        if self.destroyed and not any((self.state_dir / "spool" / "quarantine").glob("*")):
            findings.report("lost", ["damaged rows that no quarantine tells"])
        return findings

    def judge_health(self, findings: Findings, *more: HealthWatch) -> None:
        """Reports what health said that was not true, of the audit service and of more services."""
        watches = (self.health, *more)
        findings.compared = sum(watch.compared for watch in watches)
        findings.report("untrue", (untrue for watch in watches for untrue in watch.untrue))

    def small_disk(self, folder: Path) -> "SmallDisk":
        """Mounts a small file system at folder until the world ends."""
        folder.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", folder], check=True)
        self._stack.callback(lambda: subprocess.run(["umount", "--lazy", folder], check=True))
        return SmallDisk(folder)

    def _take_producers(self) -> list[Producer]:
        producers, self._producers = self._producers, []
        return producers


class SmallDisk:
    """A file system that can be filled and emptied."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._filler = folder / "filler"

    def fill(self, left_bytes: int = 0) -> None:
        """Takes all room but left_bytes."""
        with self._filler.open("wb", buffering=0) as filler, suppress(OSError):
            while shutil.disk_usage(self._folder).free > left_bytes:
                filler.write(bytes(4096))

    def empty(self) -> None:
        """Gives the room back."""
        self._filler.unlink()


def lost_lines(metrics_address: str) -> float:
    """How many log lines a service says that it has lost."""
    with urllib.request.urlopen(f"http://{metrics_address}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    return float(re.search(r"^onrecord_log_lost_lines_total (\S+)$", text, re.MULTILINE)[1])  # type: ignore[index]


def wait_for(condition: Callable[[], bool], otherwise: str, seconds: float = 60, again: float = 0.02) -> None:
    """Waits until condition holds, and looks again after so many seconds.

    Raises:
        TimeoutError: it does not, as otherwise says.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(again)


@cache
def can_mount() -> bool:
    """Whether this process may mount a tmpfs."""
    with TemporaryDirectory() as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=False, capture_output=True)
        if mounted.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return mounted.returncode == 0
