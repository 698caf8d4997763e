"""Budgets: what a turn, a session and a label may cost. They are checked before each step.

A turn's and a session's cost is with the session. What labels have spent is in a file in the state directory, or
in the database of sessions, for all gateways that share it; optionally the ledger is asked too, which knows them all.
"""

import fcntl
import json
import os
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, Self

import structlog

from gateway_svc.errors import BudgetUnknown
from recording.replacing import replace_file

Period = Literal["", "day", "month"]
ANY_VALUE = "*"

_LABEL_BUDGET = re.compile(r"(?P<key>[^=]+)=(?P<value>.+):(?P<micros>\d+)(?:/(?P<period>day|month))?")
_PERIOD_FORMATS: Mapping[Period, str] = {"": "", "day": "%Y-%m-%d", "month": "%Y-%m"}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Budget:
    """What something may cost, in millionths of a US dollar."""

    name: str
    """A name for messages, such as `this session`."""
    max_micros: int
    spent: Callable[[], int]

    @property
    def left_micros(self) -> int:
        """What may still be spent; negative if the last step cost more than was left."""
        return self.max_micros - self.spent()


@dataclass(frozen=True, slots=True)
class LabelBudget:
    """What all sessions with a label may cost in a period, by UTC; the empty period is all time."""

    key: str
    value: str
    """`*`: each value of the key has a budget of its own."""
    max_micros: int
    period: Period = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses KEY=VALUE:MICROS, with an optional /day or /month.

        Raises:
            ValueError: the text has another form.
        """
        match = _LABEL_BUDGET.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not KEY=VALUE:MICROS, KEY=VALUE:MICROS/day or KEY=VALUE:MICROS/month")
        period: Period = "day" if match["period"] == "day" else "month" if match["period"] else ""
        return cls(match["key"].strip(), match["value"].strip(), int(match["micros"]), period)

    def account(self, labels: Mapping[str, str], now: datetime) -> "Account | None":
        """The account that a session with these labels spends from; None if the budget does not apply."""
        value = labels.get(self.key)
        if value is None or self.value not in (value, ANY_VALUE):
            return None
        return Account(self.key, value, now.strftime(_PERIOD_FORMATS[self.period]))


@dataclass(frozen=True, slots=True)
class Account:
    """A label's value in a period, for which spending is counted."""

    key: str
    value: str
    period: str
    """Such as 2026-11-24 or 2026-11; empty for all time."""

    def __str__(self) -> str:
        return json.dumps([self.key, self.value, self.period], ensure_ascii=False)

    @property
    def name(self) -> str:
        """A name for messages."""
        return f"label {self.key}={self.value}" + (f" in {self.period}" if self.period else "")

    @property
    def created_from_ms(self) -> int | None:
        """The start of the period, in milliseconds since 1970-01-01 UTC; None for all time."""
        if not self.period:
            return None
        first_day = self.period if self.period.count("-") == 2 else f"{self.period}-01"
        return int(datetime.fromisoformat(first_day).replace(tzinfo=UTC).timestamp()) * 1000


class Spent(Protocol):
    """What accounts have spent, which survives the process, and which gateways may share."""

    def spent(self, account: Account) -> int:
        """Millionths of a US dollar, as far as is known here."""
        ...

    def add(self, accounts: Sequence[Account], micros: int, now: datetime) -> None:
        """Adds to accounts. What cannot be written is kept in memory, and retried."""
        ...

    async def look(self, accounts: Sequence[Account]) -> None:
        """Returns when it is known here what others have spent so far, of which is heard from then on.

        Raises:
            StoreUnavailable: they cannot be asked.
        """
        ...


def is_current(account: str, now: datetime) -> bool:
    """Whether the period of an account, given as its text, is not over."""
    return json.loads(account)[2] in {"", *(now.strftime(form) for form in _PERIOD_FORMATS.values())}


class Spending:
    """See Spent: in a file, for all gateways on a state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "spending.json"
        self._unwritten: dict[str, int] = {}
        """Spending that could not be written yet."""

    async def look(self, accounts: Sequence[Account]) -> None:
        """The file is read whenever it counts."""

    def spent(self, account: Account) -> int:
        """See Spent."""
        return self._read().get(str(account), 0) + self._unwritten.get(str(account), 0)

    def add(self, accounts: Sequence[Account], micros: int, now: datetime) -> None:
        """Adds to accounts. What cannot be written is kept in memory, and retried with the next write."""
        for account in accounts:
            self._unwritten[str(account)] = self._unwritten.get(str(account), 0) + micros
        try:
            with self._locked():
                total = {text: spent for text, spent in self._read().items() if is_current(text, now)}
                for text, spent in self._unwritten.items():
                    total[text] = total.get(text, 0) + spent
                replace_file(self._path, json.dumps(total, ensure_ascii=False).encode(), synced=False)
            self._unwritten.clear()
        except OSError as error:
            log.warning("budgets.unwritable", reason=str(error))

    def _read(self) -> dict[str, int]:
        try:
            spent: dict[str, int] = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError:  # a power cut can leave it empty: no turn may fail for that, and the ledger knows
            log.warning("budgets.unreadable", path=str(self._path))
            return {}
        return spent

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


Ask = Callable[[Account], Awaitable[int]]
"""Asks the ledger what an account has spent. Raises BudgetUnknown if it does not answer."""


@dataclass(slots=True)
class LabelBudgets:
    """The budgets of a session's labels, and their accounts."""

    budgets: list[Budget] = field(default_factory=list)
    uncertain: list[str] = field(default_factory=list)
    """Warnings about accounts that the ledger could not be asked for."""
    accounts: list[Account] = field(default_factory=list)
    spending: Spent | None = None

    def add(self, micros: int) -> None:
        """Adds the cost of a request."""
        if self.spending and self.accounts and micros:
            self.spending.add(self.accounts, micros, datetime.now(UTC))


class Budgets:
    """The deployment's budgets for labels."""

    def __init__(
        self,
        labels: Sequence[LabelBudget] = (),
        spending: Spent | None = None,
        ask: Ask | None = None,
        *,
        strict: bool = False,
    ) -> None:
        """`ask` queries the ledger. If it fails, `strict` refuses the turn; otherwise the local figure counts."""
        self._labels = labels
        self._spending = spending
        self._ask = ask
        self._strict = strict

    async def of(self, labels: Mapping[str, str]) -> LabelBudgets:
        """The budgets that apply to a session with these labels.

        Raises:
            BudgetUnknown: the mode is `strict`, and the ledger does not answer.
            StoreUnavailable: what other gateways have spent cannot be asked.
        """
        found, spending, now = LabelBudgets(spending=self._spending), self._spending, datetime.now(UTC)
        if spending is None:
            return found
        accounts = [(label, account) for label in self._labels if (account := label.account(labels, now))]
        await spending.look([account for _, account in accounts])
        for label, account in accounts:
            elsewhere = await self._spent_elsewhere(account, spending, found)
            if account not in found.accounts:
                found.accounts.append(account)
            found.budgets.append(Budget(account.name, label.max_micros, partial(_spent, spending, account, elsewhere)))
        return found

    async def _spent_elsewhere(self, account: Account, spending: Spent, found: LabelBudgets) -> int:
        """Spending that the ledger knows about and this state directory does not."""
        if self._ask is None:
            return 0
        known = spending.spent(account)
        try:
            return max(0, await self._ask(account) - known)
        except BudgetUnknown as error:
            if self._strict:
                raise
            found.uncertain.append(f"{account.name}: {error}; what this gateway knows of counts")
            return 0


def _spent(spending: Spent, account: Account, elsewhere: int) -> int:
    return spending.spent(account) + elsewhere
