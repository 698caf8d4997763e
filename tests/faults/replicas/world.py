"""A round's world on PostgreSQL: two audit services, a balancer before them, and producers that come and go."""

import atexit
import random
import shutil
import subprocess
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import IO, Any

import psycopg

from audit_svc.postgres.open import migrate
from audit_svc.postgres.open.connection import connect
from demo.postgres import PostgresServer
from demo.processes import run_command
from tests.faults.ledger import CALLS, COSTS, Findings, compare
from tests.faults.proxy import Proxy
from tests.faults.replicas.replica import Replica
from tests.faults.standing_log import LogPipe
from tests.faults.world import Producer, SmallDisk, World, wait_for

TEMPLATE = "faults"
REPLICAS = ("replica-1", "replica-2")
DISK_MIB = 320
ACK_SECONDS = 3.0

_WATCH = """
    CREATE SCHEMA watched;
    CREATE TABLE watched.commits (number bigserial, epoch bigint, began boolean, replica text);
    CREATE FUNCTION watched.note() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO watched.commits (epoch, began, replica)
        SELECT epoch, TG_TABLE_NAME = 'ledger_writer', current_setting('application_name') FROM public.ledger_writer;
        RETURN NULL;
    END
    $$;
    CREATE TRIGGER note AFTER UPDATE ON ledger_writer FOR EACH ROW WHEN (OLD.epoch <> NEW.epoch)
        EXECUTE FUNCTION watched.note();
    CREATE TRIGGER note AFTER INSERT ON tool_call_log FOR EACH STATEMENT EXECUTE FUNCTION watched.note();
    CREATE TRIGGER note AFTER INSERT ON cost_log FOR EACH STATEMENT EXECUTE FUNCTION watched.note();
"""
"""What each commit of rows leaves behind: under which epoch it was made, and by which replica.

The row of ledger_writer, which each holds, puts them in order. Questions that a standby logs are not meant.
"""


class Balancer(Proxy):
    """A proxy that leads each connection to one of several places."""

    def __init__(self, rng: random.Random, places: list[str]) -> None:
        super().__init__(places[0])
        self._rng = rng
        self._places = places

    def _upstream(self) -> tuple[str, int]:
        host, _, port = self._rng.choice(self._places).rpartition(":")
        return host, int(port)


class ReplicasWorld(World):
    """Its database server is shared by rounds, save of those that fill its disk."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self.server: PostgresServer = _shared_server()
        self.disk: SmallDisk | None = None
        self.replicas: list[Replica] = []
        self._database = ""

    def start_on_small_disk(self) -> None:
        """As start(), with a database server whose disk can be filled."""
        folder = Path(tempfile.mkdtemp(prefix="onrecord-pg-", dir="/tmp"))  # not below a folder that only root enters
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        options = f"size={DISK_MIB}m,mode=0755"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
        self._stack.callback(lambda: subprocess.run(["umount", "--lazy", folder], check=True))
        self.server = self._stack.enter_context(_new_server(folder, {"max_wal_size": "64MB", "min_wal_size": "32MB"}))
        self.disk = SmallDisk(folder)
        self.start()

    def start(self, *, log: LogPipe | IO[bytes] | None = None, **settings: str) -> None:
        """Starts two replicas, and the balancer."""
        self._database = f"round_{random.getrandbits(64):x}"
        url = self.server.create_database(self._database, TEMPLATE)
        self._stack.callback(self._drop)
        self.replicas = [Replica(name, url, self.folder / "seal-key", self._stack) for name in REPLICAS]
        for replica in self.replicas:
            replica.start()
        self.proxy = self._stack.enter_context(Balancer(self.rng, [replica.address for replica in self.replicas]))
        self.writer()

    def start_producer(self, *, wait: bool = True, **orders: Any) -> Producer:
        """A commit behind a standby and a loaded machine may take longer than half a second."""
        return super().start_producer(wait=wait, **{"ack_seconds": ACK_SECONDS, **orders})

    def writer(self, *others: Replica) -> Replica:
        """The replica that says that it writes, once one does that is not among others."""
        found: list[Replica] = []

        def writes() -> bool:
            found[:] = [replica for replica in self.replicas if replica not in others and replica.serves("writer")]
            return len(found) == 1  # one that has just woken may say for a moment what it was

        wait_for(writes, "no replica writes")
        return found[0]

    def standby(self) -> Replica:
        """One that does not write now."""
        writer = self.writer()
        return next(replica for replica in self.replicas if replica is not writer)

    def kill_replica(self, replica: Replica) -> None:
        """SIGKILL of a replica."""
        replica.kill()
        self.kills += 1

    def kill_postgres(self) -> None:
        """SIGKILL of the database server and its children."""
        self.server.kill()
        self.kills += 1

    def wait_for_more_commits(self) -> None:
        """Until something was committed after this."""
        before = self._commits()
        wait_for(lambda: self._commits() > before, "nothing was committed any more")

    def settle(self) -> Findings:
        """Heals what was cut, starts again what is dead, delivers everything, and looks."""
        self.proxy.behaviour = "pass"
        if not self.server.is_running:
            self.server.start()
        for replica in self.replicas:
            replica.to_database.behaviour = replica.from_others.behaviour = "pass"
            replica.to_database.cut()  # what was swallowed is not made up for
            replica.from_others.cut()
            replica.wake()
            if not replica.is_running:
                replica.start()
        self.proxy.cut()
        if self._producers:
            self.wait_for_rows()
        ended = [producer.drain() for producer in self._take_producers()]
        self.start_producer(rows_per_second=0)
        ended += [producer.drain() for producer in self._take_producers()]
        findings = Findings(accepted=len(self.journal().accepted))
        for replica in self.replicas:
            try:
                wait_for(replica.serves, "")
                findings.compared += 1
            except TimeoutError:
                findings.report("untrue", [f"{replica.name} never serves again"])
        for replica in self.replicas:
            replica.stop()
        with psycopg.connect(self.server.url(self._database)) as connection:
            costs = [row_id for (row_id,) in connection.execute(COSTS)]
            compare(connection.execute(CALLS).fetchall(), costs, self.journal(), findings)
            _judge_writers(connection, findings)
        verified = run_command("audit_svc", {"AUDIT_DB": self.server.url(self._database)}, "verify")
        if verified.returncode:
            findings.report("corrupt", [f"verify: {verified.stdout.strip()} {verified.stderr.strip()}"])
        if not all(each.drained for each in ended):
            findings.report("lost", ["a spool that could not be drained"])
        if any(each.counters["rejected"] for each in ended):
            findings.report("lost", ["rows in a dead-letter file"])
        if not findings.accepted:
            findings.report("lost", ["a round that accepted nothing shows nothing"])
        return findings

    def _commits(self) -> int:
        with psycopg.connect(self.server.url(self._database)) as connection:
            row = connection.execute("SELECT coalesce(max(position), 0) FROM tool_call_log").fetchone()
        return int(row[0]) if row else 0

    def _drop(self) -> None:
        if self.server.is_running:
            self.server.drop_database(self._database)


def _judge_writers(connection: psycopg.Connection[Any], findings: Findings) -> None:
    """An epoch is one replica's, from its begin to that of the next."""
    epoch, writer, problems = 0, "", []
    for number, of, began, replica in connection.execute("TABLE watched.commits ORDER BY number"):
        if began:
            epoch, writer = of, replica
        elif of != epoch or replica != writer:
            problems.append(f"commit {number} of {replica} in the epoch of {writer}")
    findings.report("two_writers", problems)
    (holes,) = connection.execute("SELECT max(position) - count(*) FROM tool_call_log").fetchone() or (0,)
    if holes:
        findings.report("corrupt", [f"{holes} positions that no call has"])


def _new_server(folder: Path | None = None, settings: dict[str, str] | None = None) -> PostgresServer:
    server = PostgresServer(synced=False, settings=settings, folder=folder)
    with closing(connect(server.create_database(TEMPLATE), writes=True)) as connection:
        migrate.up(connection, migrate.load_migrations())
        connection.raw.execute(_WATCH)
    return server


@cache
def _shared_server() -> PostgresServer:
    server = _new_server()
    atexit.register(server.close)
    return server
