"""An application whose threads record calls with a Ledger, and which forks at any moment, from any thread.

Its children record too; they end in every way, or become another program. What all of them did is in a journal that
outlives them, of the form of tests/faults/producer.py: `i ID` before a call, `b ID` when its intent was recorded,
`e ID` when its body has ended, `a ID` when its record has returned; `f PID` of each child, `k PID` before one kills
itself.
"""

import faulthandler
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from onrecord.client import Ledger

THREADS = 3
_LIFE_SECONDS = 120.0
"""After which it ends, whatever becomes of the round."""
_FORKS_AGAIN = 3
"""How many generations of children there are."""


@dataclass(frozen=True)
class Orders:
    """What an application is to do."""

    state_dir: str
    target: str | None
    journal: str
    stop: str
    """It ends when this file is there."""
    reaps: bool
    """Whether it takes the exit codes of children that it does not know; otherwise the system does."""
    calls: int = 0
    """How many calls it makes before it ends; 0: until it is told to stop."""

    def command(self) -> list[str]:
        """What runs it."""
        program = ["-W", "ignore::DeprecationWarning", "-m", "tests.faults.applications.program"]
        return [sys.executable, *program, json.dumps(asdict(self))]


class Application:
    """The process, and after a fork each of its children."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._journal = os.open(orders.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._stop = Path(orders.stop)
        self._until = time.monotonic() + _LIFE_SECONDS
        self._generation = 0
        self._in_handler = False
        """Whether this process was forked in a signal's handler, or comes from one that was."""
        self._ledger = Ledger(orders.state_dir, orders.target, engine="faults", drain_seconds=0.2)

    def run(self) -> None:
        """Its life."""
        self._ledger.open()
        signal.signal(signal.SIGUSR1, lambda *_: self._fork(in_handler=True))
        if self._orders.calls:
            self._call_often(self._orders.calls)
            return
        if self._orders.reaps:
            threading.Thread(target=self._reap, daemon=True).start()
        else:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        threads = [threading.Thread(target=self._work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        self._work()
        for thread in threads:
            thread.join()
        if random.random() < 0.5:
            self._ledger.close()

    def _is_over(self) -> bool:
        return self._stop.exists() or time.monotonic() > self._until

    def _work(self) -> None:
        while not self._is_over():
            self._call(self._body)
            if random.random() < 0.01:
                self._fork()
            time.sleep(random.uniform(0, 0.01))

    def _call_often(self, times: int) -> None:
        for _ in range(times):
            self._call(lambda: time.sleep(random.uniform(0, 0.002)))

    def _call(self, body: Callable[[], None]) -> None:
        call = self._ledger.tool_call("work", {"words": "of the application"}, turn_id=os.urandom(12).hex())
        self._tell("i", call.id)
        with call:
            self._tell("b", call.id)
            body()
            self._tell("e", call.id)
        self._tell("a", call.id)

    def _body(self) -> None:
        chance = random.random()
        if chance < 0.01:
            self._fork()
        elif chance < 0.1:
            self._call_often(1)
        else:
            time.sleep(random.uniform(0, 0.005))

    def _fork(self, *, in_handler: bool = False) -> None:
        if self._generation < _FORKS_AGAIN and not os.fork():
            self._live_as_child(in_handler)

    def _live_as_child(self, in_handler: bool) -> NoReturn:
        """It never returns into what its parent was doing."""
        random.seed()
        self._generation += 1
        self._in_handler = self._in_handler or in_handler
        self._tell("f", os.getpid())
        self._call_often(random.randrange(4))
        if random.random() < 0.3:
            beside = threading.Thread(target=self._call_often, args=(3,))
            beside.start()
            if random.random() < 0.5:
                self._fork()
            beside.join()
        ends = [self._leave, self._die, self._die_in_body, self._become, self._stay]
        if not self._in_handler:  # which may have interrupted what lets no exception pass, such as another fork's hooks
            ends.append(self._exit)
        random.choice(ends)()
        os._exit(0)

    def _exit(self) -> None:
        """With all that Python does at its end, where a thread forked that is Python's main one."""
        sys.exit()

    def _leave(self) -> None:
        os._exit(0)

    def _die(self) -> None:
        self._tell("k", os.getpid())
        os.kill(os.getpid(), signal.SIGKILL)

    def _die_in_body(self) -> None:
        self._call(self._die)

    def _become(self) -> None:
        """Another program, in some cases in the middle of a call."""
        argv = Orders(**{**asdict(self._orders), "calls": random.randint(1, 4)}).command()
        if random.random() < 0.6:
            argv = ["sleep", "0.5"]
        if random.random() < 0.5:
            self._call(lambda: os.execvp(argv[0], argv))
        os.execvp(argv[0], argv)

    def _stay(self) -> None:
        """For longer than its parent may live."""
        time.sleep(random.uniform(0.1, 1))
        self._call_often(2)

    def _reap(self) -> None:
        while not self._is_over():
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                time.sleep(0.01)

    def _tell(self, kind: str, what: object) -> None:
        os.write(self._journal, f"{kind} {what}\n".encode())


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR2)
    Application(Orders(**json.loads(sys.argv[1]))).run()
