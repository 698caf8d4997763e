"""Spools whose next rows are of a newer version than the ledger knows: they wait, and the others go on meanwhile."""

import asyncio
from dataclasses import dataclass

from recording.delivery.failures import backoff_seconds
from recording.log import get_logger
from recording.spool import Batch

log = get_logger(__name__)


@dataclass(slots=True)
class _Wait:
    row_version: int
    ledger_knows: int
    times: int = 0
    until: float = 0.0
    """When it is tried again, by the loop's clock."""


class HeldBack:
    """Those of one sender, by their ids; true while there are any.

    What changes them belongs to the event loop's thread; whether there are any, and refusal(), others may ask.
    """

    def __init__(self, address: str) -> None:
        """address: the audit service's."""
        self._address = address
        self._waits: dict[str, _Wait] = {}

    def __bool__(self) -> bool:
        return bool(self._waits)

    def hold(self, spool_id: str, batch: Batch, ledger_knows: int, kept_rows: int) -> None:
        """Lets a spool wait, longer each time, for whose next batch the ledger is too old; the first time tells it."""
        held = self._waits.setdefault(spool_id, _Wait(batch.row_version, ledger_knows))
        held.row_version, held.ledger_knows = batch.row_version, ledger_knows
        held.until = asyncio.get_running_loop().time() + backoff_seconds(held.times)
        held.times += 1
        getattr(log, "error" if held.times == 1 else "debug")(
            "audit.ledger_too_old",
            target=self._address,
            producer_id=spool_id,
            row_version=held.row_version,
            ledger_knows=ledger_knows,
            kept_rows=kept_rows,
            hint="upgrade the ledger first: the rows are kept until it knows them",
        )

    def release(self, spool_id: str) -> None:
        """Its rows are taken again."""
        self._waits.pop(spool_id, None)

    def waits(self, spool_id: str) -> bool:
        """Whether it is held back now."""
        held = self._waits.get(spool_id)
        return held is not None and asyncio.get_running_loop().time() < held.until

    def until(self) -> float | None:
        """When the next one is tried again, by the loop's clock; None if there is none."""
        return min((held.until for held in self._waits.values()), default=None)

    def refusal(self) -> str:
        """Which rows wait for what; empty if none do."""
        if held := max(list(self._waits.values()), key=lambda one: one.row_version, default=None):
            return (
                f"rows of row_version {held.row_version} wait, and the ledger knows {held.ledger_knows}: "
                "upgrade the ledger first"
            )
        return ""
