"""The sealing process beside the service: started with it, started again when it dies, ended after the last row.

Of several replicas that of the one that writes seals. Two at once would make no fork (see Log.changing()), but get in
each other's way.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from audit_svc.errors import AuditError, WrongSetting
from audit_svc.seal.outside.holders import Holders
from audit_svc.seal.outside.http_authority import Authority
from audit_svc.seal.outside.policy import watch_policy
from audit_svc.seal.outside.stamps import refuse_without_library
from audit_svc.seal.reader import SealReader
from audit_svc.sealing.places import DATABASE, LOOK, place_of
from audit_svc.settings import AuditSettings
from recording.transparency.errors import TransparencyError
from recording.upkeep import attempt

log = structlog.get_logger(__name__)

AGAIN_SECONDS = 5.0
LOOK_SECONDS = 0.5
"""How often it is looked whether this replica writes."""
KEY_SECONDS = 5.0
"""How often one that does not write looks whether its key has become an older one."""
LAST_ROUND_SECONDS = 5.0
"""How long a last round may take: half of what a service has after its drain time."""
KILLED_SECONDS = 5.0
"""How long one that was killed may be in a write that its disk holds up."""
MAX_LINE_BYTES = 64 * 1024


def _authority_of(settings: AuditSettings, writes: Callable[[], bool]) -> Authority | None:
    """Raises StoreRefused: its library is missing."""
    if not settings.seal_timestamp_url or not settings.seal_timestamp_ca:
        return None
    refuse_without_library()
    return Authority(settings.seal_timestamp_url, settings.seal_timestamp_ca, settings.seal_timestamp_seconds, writes)


class SealProcess(Collector):
    """What the service knows of its sealing process."""

    def __init__(
        self,
        settings: AuditSettings,
        writes: Callable[[], bool] = lambda: True,
        held_up_by: Callable[[], Collection[int]] = tuple[int, ...],
    ) -> None:
        """writes: whether this replica is the one that writes now. held_up_by: see Store.

        Raises WrongSetting: no key is named.
        """
        self._writes = writes
        self._held_up_by = held_up_by
        self._seconds = settings.seal_seconds
        self._database = settings.db
        self._folder = settings.seal_dir
        self.place = place = place_of(settings.db, settings.seal_dir)
        self._key_file = settings.seal_key_file or place.key_file
        if self._seconds and self._key_file is None:
            raise WrongSetting(
                "AUDIT_SEAL_KEY_FILE has to name the key of the seal, one for all replicas: no database has it; "
                "AUDIT_SEAL_SECONDS=0 seals nothing"
            )
        self._origin = settings.seal_origin or ""
        self._max_lag_seconds = settings.seal_max_lag_seconds
        self.reader: SealReader | None = None
        self.holders: Holders | None = None
        if self._seconds:
            witnesses = watch_policy(settings.seal_witnesses)
            self.reader = SealReader(place.open_ledger, place.open_log(), witnesses)
            self.holders = Holders(
                self.reader,
                witnesses,
                settings.seal_hook,
                settings.seal_outside_seconds,
                _authority_of(settings, writes),
            )
        self._leaves = 0
        self._key = ""
        """The verifier key of the log, once it is told."""
        self._trouble = ""
        self._caught_up = time.monotonic()
        self._process: asyncio.subprocess.Process | None = None
        self._ending = False
        self._look_again = 0.0
        self._seen_key: tuple[bytes, tuple[int, int]] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Seals while the body runs, and once more after it."""
        if not self.reader or not self.holders:
            yield
            return
        watching = asyncio.create_task(self._keep_running())
        try:
            async with self.holders.running():
                yield
        finally:
            self._ending = True
            self.place.give_up()
            self.reader.close()
            if self._process and self._process.stdin:
                self._process.stdin.close()
            if not await self._has_made_last_round(watching):
                watching.cancel()
                await asyncio.wait([watching])

    async def _has_made_last_round(self, watching: "asyncio.Task[None]") -> bool:
        """Waits for it while this replica writes: else there is nothing to seal here, or the database stands still."""
        until = time.monotonic() + LAST_ROUND_SECONDS
        while self._writes():
            left = min(LOOK_SECONDS, until - time.monotonic())
            if left <= 0:
                log.warning("seal.killed", leaves=self._leaves)
                break
            if (await asyncio.wait([watching], timeout=left))[0]:
                return True
        return False

    def why_troubled(self) -> str:
        """What an operator should look at, empty when there is nothing."""
        if self._trouble:
            return f"the seal: {self._trouble}"
        if self._seconds and self.lag_seconds > self._max_lag_seconds:
            return f"the seal is {self.lag_seconds:.0f} s behind what was committed"
        return self.holders.why_troubled() if self.holders else ""

    @property
    def lag_seconds(self) -> float:
        """Since all that was committed was last sealed; 0 while nothing is sealed here."""
        return time.monotonic() - self._caught_up if self._seconds and self._writes() else 0.0

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The state of this moment."""
        yield GaugeMetricFamily("onrecord_seal_leaves", "Rows in the seal's log.", value=self._leaves)
        yield GaugeMetricFamily(
            "onrecord_seal_lag_seconds", "Since all that was committed was last sealed.", value=self.lag_seconds
        )
        yield GaugeMetricFamily(
            "onrecord_seal_trouble",
            "1 while nothing can be sealed: the log and the health check say why.",
            value=bool(self._trouble),
        )
        yield from self.holders.collect() if self.holders else ()

    async def _keep_running(self) -> None:
        while not self._ending:
            if not self._writes():
                self._caught_up = time.monotonic()
                with attempt("looking at the key of the seal", foreseen=(AuditError, TransparencyError, OSError)):
                    await self._look_at_key()
                await asyncio.sleep(LOOK_SECONDS)
                continue
            try:
                await self._run()
            except OSError as error:
                self._say_trouble(f"it cannot be started ({error.strerror})")
            if not self._ending and self._writes():
                self._say_trouble(self._trouble or "its process has died; it is started again")
                await asyncio.sleep(AGAIN_SECONDS)

    async def _look_at_key(self) -> None:
        """Whether this replica could go on with the log, before it has to: by a process, since no other reads the key.

        Only where something has changed since: the log's key, or the key's file.
        """
        if not self.reader or time.monotonic() < self._look_again:
            return
        self._look_again = time.monotonic() + KEY_SECONDS
        seen = (await self.reader.ask(SealReader.key), _state_of(self._key_file))
        if seen == self._seen_key:
            return
        process = await self._start(LOOK)
        try:
            told, _ = await process.communicate()
        finally:
            with suppress(ProcessLookupError):
                process.kill()
        if process.returncode == 0:
            self._seen_key = seen
            self._say_trouble(json.loads(told)["trouble"] if told else "")

    async def _start(self, seconds: float | str) -> asyncio.subprocess.Process:
        said = [self._folder or "", self._key_file, self._origin, seconds, os.getpid()]
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "audit_svc.sealing", *map(str, said)),
            env=os.environ | {DATABASE: str(self._database)},
            stdin=pipe,
            stdout=pipe,
            start_new_session=True,  # ^C in a terminal is for the service, which ends it
            limit=MAX_LINE_BYTES,
        )

    async def _run(self) -> None:
        self._seen_key, self._look_again = None, 0.0
        self._process = process = await self._start(self._seconds)
        looking = asyncio.create_task(self._end_in_time(process))
        try:
            if self._ending and process.stdin:
                process.stdin.close()
            while process.stdout and (line := await process.stdout.readline()):
                self._hear(line)
            await process.wait()
        finally:
            looking.cancel()
            with suppress(ProcessLookupError):
                process.kill()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), KILLED_SECONDS)

    async def _end_in_time(self, process: asyncio.subprocess.Process) -> None:
        """Where another replica writes. One that stands still in a read, which its writer waits for, is killed."""
        while self._writes():
            if process.pid in self._held_up_by():
                self._say_trouble(
                    "its process stood still in a read, and the ledger's log of writes grew: it was killed"
                )
                with suppress(ProcessLookupError):
                    process.kill()
                return
            await asyncio.sleep(LOOK_SECONDS)
        if process.stdin:
            process.stdin.close()

    def _hear(self, line: bytes) -> None:
        said = json.loads(line)
        if trouble := said.get("trouble"):
            self._say_trouble(trouble)
            return
        self._say_trouble("")
        self._leaves = said["leaves"]
        if said["behind"]:
            return
        self._caught_up = time.monotonic()
        if said["key"] != self._key:
            self._key = said["key"]
            log.info("seal.key", verifier_key=self._key, hint="keep it where who writes to the ledger cannot")

    def _say_trouble(self, trouble: str) -> None:
        if trouble != self._trouble:
            if trouble:
                log.error("seal.trouble", reason=trouble)
            else:
                log.info("seal.goes_on")
        self._trouble = trouble


def _state_of(file: Path | None) -> tuple[int, int]:
    """Other numbers where a file was changed or replaced; zeros where there is none."""
    try:
        found = Path(file or "").stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_ino, found.st_mtime_ns
