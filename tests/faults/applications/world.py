"""A round's world with applications that record with a Ledger, and whoever sends what they append.

That is the program that a Ledger starts by need, the same program run by hand, or a gateway's record on that folder.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from demo.processes import REPOSITORY, environment, run_command
from recording.delivery import dead_letters
from recording.held_folder import ACKED
from recording.producing.courier import SENDER_LOCK, SenderProgram
from tests.faults.applications import processes
from tests.faults.applications.program import Orders
from tests.faults.applications.told import Told, look
from tests.faults.ledger import Findings
from tests.faults.world import Producer, World, wait_for

_SENDER = "recording.following.program"
_END_SECONDS = 180.0


class ApplicationsWorld(World):
    """Applications share a state directory, and outlive one another."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self.sent_by = rng.choice(["need", "hand", "gateway"])
        self._stop = self.folder / "stop"
        self._log = self._stack.enter_context((self.folder / "applications.log").open("ab", buffering=0))
        self._applications: list[subprocess.Popen[bytes]] = []
        self._sessions: set[int] = set()
        self._by_hand: subprocess.Popen[bytes] | None = None
        self._gateway: Producer | None = None
        self._root = self.state_dir / "spool"
        self._stack.callback(self._end_all)

    def start_application(self) -> None:
        """Another application; it goes on until the end of the round, unless it is killed."""
        orders = Orders(
            str(self.state_dir),
            self.proxy.address if self.sent_by == "need" else None,
            str(self._journal),
            str(self._stop),
            reaps=self.rng.random() < 0.5,
        )
        self._applications.append(self._start(orders.command()))
        self._sessions.add(self._applications[-1].pid)

    def start_sender(self) -> None:
        """Whoever sends; applications start the program themselves where it is sent by need."""
        if self.sent_by == "hand":
            self._by_hand = self._start(self._sender_command())
            self._sessions.add(self._by_hand.pid)
        elif self.sent_by == "gateway":
            self._gateway = self.start_producer(rows_per_second=100)

    def kill_application(self) -> None:
        """SIGKILL to an application, whose children live on; another begins."""
        application = self.rng.choice(self._applications)
        self._applications.remove(application)
        application.kill()
        application.wait()
        self.kills += 1
        self.start_application()

    def kill_child(self) -> None:
        """SIGKILL to a child of an application, if there is one."""
        if children := self._children():
            self.kills += processes.send(self.rng.choice(children), signal.SIGKILL, self._sessions)

    def kill_sender(self) -> None:
        """SIGKILL to whoever sends; another begins, sooner or later."""
        if self.sent_by == "need":
            if sender := self._sender():
                self.kills += processes.send(sender, signal.SIGKILL, {processes.session_of(sender)})
        elif self._gateway is not None:
            self.kill_producer(self._gateway)
        elif self._by_hand is not None:
            self._by_hand.kill()
            self._by_hand.wait()
            self.kills += 1
        self.pause(0, 0.3)
        self.start_sender()

    def freeze_application(self) -> None:
        """An application stands still for a moment, and goes on; its children do not."""
        self._freeze(self.rng.choice(self._applications).pid)

    def freeze_child(self) -> None:
        """A child stands still for a moment, if there is one."""
        if children := self._children():
            self._freeze(self.rng.choice(children))

    def freeze_sender(self) -> None:
        """Whoever sends stands still for a moment."""
        gateway, by_hand = self._gateway, self._by_hand
        pid = gateway.pid if gateway else by_hand.pid if by_hand else self._sender()
        if pid:
            self._freeze(pid)

    def fork_in_handler(self) -> None:
        """An application forks in a signal's handler, wherever its main thread is."""
        for _ in range(5):
            os.kill(self.rng.choice(self._applications).pid, signal.SIGUSR1)
            self.pause(0, 0.02)

    def take_ledger_down(self) -> None:
        """The ledger is killed, and back after a moment."""
        self.kill_audit()
        self.pause(0.1, 0.5)
        self.start_audit()

    def settle(self) -> Findings:
        """Ends the applications, has all sent in the round's way, and looks at what came of it."""
        self.proxy.behaviour = "pass"
        self._stop.touch()
        hung = self._wait_for_their_end()
        self.health.must_tell(serves=True)
        self._deliver()
        left = self._unsent()
        findings = super().settle()
        did = Told.read(self._journal)
        self.forks = did.count("f")
        self.kills += did.count("k")
        findings.report("lost", hung)
        findings.report("lost", (f"a folder that is not sent: {path}" for path in left))
        for name in ("quarantine", dead_letters.FOLDER):
            kept = (path for path in (self._root / name).glob("*") if path.is_file() and path.stat().st_size)
            findings.report("corrupt", (f"{name}: {path.read_bytes()[:500]!r}" for path in kept))
        database = self.audit_folder / "audit.db"
        look(database, did, findings)
        checked = run_command("audit_svc", {}, "check", "--db", str(database))
        if checked.returncode:
            findings.report("corrupt", [f"check says: {checked.stdout}{checked.stderr}"])
        said = (self.folder / "applications.log").read_text(errors="replace")
        if "Traceback" in said or "Fatal" in said:
            findings.report("corrupt", [f"an application failed: {said[-2000:]}"])
        behind = processes.with_files_in(self.folder) + processes.of_sessions(self._sessions)
        findings.report("corrupt", (f"process {pid} was left behind" for pid in behind))
        return findings

    def _deliver(self) -> None:
        """Until all is sent, and the program that sent it has ended; a gateway is ended by super().settle()."""
        if self.sent_by == "gateway":
            for producer in self._take_producers():
                producer.drain()
            self.start_producer(rows_per_second=0)
            self._wait_until_sent("the gateway does not send all")
            return
        if self.sent_by == "hand":
            if self._by_hand is not None:
                self._by_hand.terminate()
                if (code := self._by_hand.wait(_END_SECONDS)) not in (0, -signal.SIGTERM):  # it may have just begun
                    raise RuntimeError(f"onrecord-send ended with {code}")
            last = self._start([*self._sender_command(), "--until-sent"])
        else:
            orders = Orders(str(self.state_dir), self.proxy.address, str(self._journal), str(self._stop), True, calls=1)
            last = self._start(orders.command())
        self._sessions.add(last.pid)
        if code := last.wait(2 * _END_SECONDS):
            raise RuntimeError(f"{last.args!r} ended with {code}")
        self._wait_until_sent("not all is sent")
        wait_for(lambda: not SenderProgram(self._root, None).is_running(), "the program that sends does not end")

    def _wait_until_sent(self, otherwise: str) -> None:
        """Until no folder of an application is left: on a busy machine there are hundreds.

        Raises:
            TimeoutError: for a minute none went.
        """
        while left := self._unsent():
            wait_for(lambda: len(self._unsent()) < len(left), f"{otherwise}: {len(left)} folders are left")

    def _unsent(self) -> list[Path]:
        return [path for path in self._root.iterdir() if (path / ACKED).exists()]

    def _wait_for_their_end(self) -> list[str]:
        """Until no application and no child of one runs; those that hang are told of, and killed."""
        sessions = self._sessions - {self._by_hand.pid if self._by_hand else 0}
        until = time.monotonic() + _END_SECONDS
        while processes.of_sessions(sessions) and time.monotonic() < until:
            time.sleep(0.02)
        hung = processes.of_sessions(sessions)
        for pid in hung:
            processes.send(pid, signal.SIGUSR2, sessions)  # which writes where it stands
        if hung:
            time.sleep(1)
        told = (self.folder / "applications.log").read_text(errors="replace")[-40000:] if hung else ""
        for pid in hung:
            processes.send(pid, signal.SIGKILL, sessions)
        return [f"process {pid} hung: {told}" for pid in hung]

    def _children(self) -> list[int]:
        applications = {application.pid for application in self._applications}
        senders = {self._by_hand.pid} if self._by_hand else set()
        return [pid for pid in processes.of_sessions(self._sessions) if pid not in applications | senders]

    def _sender(self) -> int:
        """The program that an application has started; 0 if none runs."""
        if not SenderProgram(self._root, None).is_running():
            return 0
        told = (self._root / SENDER_LOCK).read_text()
        try:
            return int(told) if _SENDER in Path(f"/proc/{int(told)}/cmdline").read_text() else 0
        except (OSError, ValueError):
            return 0

    def _freeze(self, pid: int) -> None:
        sessions = {processes.session_of(pid)}
        if processes.send(pid, signal.SIGSTOP, sessions):
            self.pause(0.1, 0.8)
            processes.send(pid, signal.SIGCONT, sessions)

    def _sender_command(self) -> list[str]:
        return [sys.executable, "-m", _SENDER, str(self.state_dir), self.proxy.address]

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            env=environment({"PYTHONPATH": ":".join(path for path in sys.path if path)}),
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def _end_all(self) -> None:
        """Whatever a round that ended early has left."""
        sender = self._sender()
        for pid in [*processes.of_sessions(self._sessions), *([sender] if sender else [])]:
            processes.send(pid, signal.SIGKILL, self._sessions | {processes.session_of(sender)})
        for process in [*self._applications, *([self._by_hand] if self._by_hand else [])]:
            process.wait()
