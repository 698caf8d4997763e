"""Tells those who remember the log outside of it of each new checkpoint, beside the service and never in its way."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager

import httpx2
import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from audit_svc.errors import AuditError, WrongSetting
from audit_svc.seal.errors import NotSealed
from audit_svc.seal.outside import hook, http_authority, http_witness
from audit_svc.seal.outside.http_authority import Authority
from audit_svc.seal.outside.policy import NamedWitness
from audit_svc.seal.outside.posting import TIMEOUT_SECONDS
from audit_svc.seal.reader import SealReader
from recording.upkeep import attempt
from service_kit.proxies import why_unusable

log = structlog.get_logger(__name__)

HOOK, TIMESTAMP = "hook", "timestamp"
"""The holders that the command and the time-stamping authority are, in metrics and in the log."""


async def _open_client() -> httpx2.AsyncClient:
    """A client for one round. Raises WrongSetting: the environment names a proxy that cannot be used."""
    if reason := why_unusable():
        raise WrongSetting(reason)
    tls = await asyncio.to_thread(httpx2.create_ssl_context)  # which reads all certificates of the system
    return httpx2.AsyncClient(verify=tls, timeout=TIMEOUT_SECONDS)


class Holders(Collector):
    """The witnesses that have a URL, the command, and the time-stamping authority."""

    def __init__(
        self,
        seal: SealReader,
        witnesses: Callable[[], Sequence[NamedWitness]],
        command: str | None,
        seconds: float,
        authority: Authority | None = None,
    ) -> None:
        """seconds: how often each gets the newest checkpoint, where there is a new one; the authority has its own."""
        self._seal = seal
        self._witnesses = witnesses
        self._command = command
        self._seconds = seconds
        self._authority = authority
        self._stamp_wait = 0.0
        """Seconds until the authority is asked again, after it has failed."""
        self._leaves: dict[str, int] = {}
        self._trouble: dict[str, str] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Tells them while the body runs."""
        loops = [asyncio.create_task(self._keep_on(self._ask_witnesses, "asking witnesses to cosign"))]
        if self._command:
            loops.append(asyncio.create_task(self._keep_on(self._run_hook, "handing out checkpoints")))
        if self._authority:
            loops.append(asyncio.create_task(self._keep_on(self._stamp, "asking for a time-stamp")))
        try:
            yield
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.wait(loops)

    def why_troubled(self) -> str:
        """Who does not take checkpoints, and why; empty where all do."""
        return "; ".join(f"{holder}: {why}" for holder, why in sorted(self._trouble.items()))

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The state of this moment."""
        leaves = GaugeMetricFamily(
            "onrecord_seal_holder_leaves", "Leaves of the newest checkpoint that a holder took.", labels=["holder"]
        )
        trouble = GaugeMetricFamily(
            "onrecord_seal_holder_trouble", "1 while a holder takes no checkpoint: the log says why.", labels=["holder"]
        )
        for holder, count in self._leaves.items():
            leaves.add_metric([holder], count)
            trouble.add_metric([holder], bool(self._trouble.get(holder)))
        yield leaves
        yield trouble

    async def _keep_on(self, tell: Callable[[], Awaitable[None]], task: str) -> None:
        while True:
            with attempt(task, foreseen=(AuditError,)):
                try:
                    await tell()
                except NotSealed:
                    await asyncio.sleep(min(1.0, self._seconds))
                    continue
            await asyncio.sleep(self._seconds)

    async def _ask_witnesses(self) -> None:
        asked = [witness for witness in self._witnesses() if witness.url]
        for name in set(self._leaves) - {witness.name for witness in asked} - {HOOK, TIMESTAMP}:
            self._leaves.pop(name)
            self._trouble.pop(name, None)
        due = [witness for witness in asked if await self._is_behind(witness)]
        if not due:
            return
        try:
            opened = await _open_client()
        except WrongSetting as error:
            for witness in due:
                self._say(witness.name, str(error))
            return
        async with opened as client:
            await asyncio.gather(*(self._ask(client, witness) for witness in due))

    async def _is_behind(self, witness: NamedWitness) -> bool:
        head = await self._seal.ask(SealReader.head)
        self._leaves[witness.name] = await self._seal.ask(lambda reader: reader.seen_by(witness.key))
        return self._leaves[witness.name] != head.checkpoint.size

    async def _ask(self, client: httpx2.AsyncClient, witness: NamedWitness) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                self._leaves[witness.name] = await http_witness.ask(client, witness, self._seal)
        except TimeoutError:
            self._say(witness.name, f"it takes longer than {TIMEOUT_SECONDS:.0f} s")
        except AuditError as error:
            self._say(witness.name, str(error), is_wrong=isinstance(error, http_witness.Contradicted))
        else:
            self._say(witness.name, "")

    async def _run_hook(self) -> None:
        head = await self._seal.ask(SealReader.head)
        self._leaves.setdefault(HOOK, 0)
        if not self._command or await self._seal.ask(lambda reader: reader.was_told(head.checkpoint)):
            return
        try:
            await hook.run(self._command, head.note)
        except hook.HookFailed as error:
            self._say(HOOK, str(error))
            return
        await self._seal.ask(lambda reader: reader.keep_told(head.checkpoint))
        self._leaves[HOOK] = head.checkpoint.size
        self._say(HOOK, "")

    async def _stamp(self) -> None:
        if not self._authority or not self._authority.writes():
            self._say(TIMESTAMP, "")
            return
        if not await http_authority.is_due(self._authority, self._seal):
            return
        self._leaves.setdefault(TIMESTAMP, 0)
        try:
            async with await _open_client() as client, asyncio.timeout(TIMEOUT_SECONDS):
                self._leaves[TIMESTAMP] = await http_authority.ask(client, self._authority, self._seal)
        except TimeoutError:
            self._say(TIMESTAMP, f"it takes longer than {TIMEOUT_SECONDS:.0f} s")
        except AuditError as error:
            self._say(TIMESTAMP, str(error))
        else:
            self._stamp_wait = 0.0
            self._say(TIMESTAMP, "")
            return
        self._stamp_wait = min(max(2 * self._stamp_wait, self._seconds), self._authority.seconds)
        await asyncio.sleep(self._stamp_wait)

    def _say(self, holder: str, why: str, *, is_wrong: bool = False) -> None:
        if why == self._trouble.get(holder, ""):
            return
        if not why:
            log.info("seal.holder_goes_on", holder=holder)
        elif is_wrong:
            log.error("seal.contradicted", holder=holder, reason=why)
        else:
            log.warning("seal.holder_away", holder=holder, reason=why)
        self._trouble[holder] = why
        if not why:
            del self._trouble[holder]
