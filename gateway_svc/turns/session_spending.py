"""What a session has spent, while its turn and the shadows of earlier turns spend from it side by side."""

from dataclasses import dataclass
from weakref import WeakValueDictionary

from gateway_svc.turns.budgets import Budget
from gateway_svc.turns.sessions import SessionState


@dataclass(slots=True, weakref_slot=True)
class SessionSpending:
    """Shared by all that run for a session: each sees what the others have spent before its own next step."""

    micros: int = 0
    """All that the session has ever spent, in millionths of a US dollar."""

    def add(self, micros: int) -> None:
        """Adds what a request cost."""
        self.micros += micros

    def budget(self, max_micros: int) -> Budget:
        """The session's budget."""
        return Budget("this session", max_micros, lambda: self.micros)


class SessionSpendings:
    """Those of the sessions for which something runs."""

    def __init__(self) -> None:
        self._live: WeakValueDictionary[str, SessionSpending] = WeakValueDictionary()

    def of(self, state: SessionState) -> SessionSpending:
        """A session's, which lives as long as somebody holds it; its state tells what was spent before."""
        spending = self._live.setdefault(state.id, SessionSpending())
        # another gateway may have gone on with the session meanwhile
        spending.micros = max(spending.micros, state.totals.cost_micros + state.shadow_totals.cost_micros)
        return spending
