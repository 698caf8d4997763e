"""Which failures of a model server are tried again, and when."""

import random
from dataclasses import dataclass

from gateway_svc.engines.wire.failures import LOADING_SECONDS
from gateway_svc.errors import EngineError

_MAX_WAIT_S = 8.0
_MAX_LOADING_S = 600.0
"""The longest announced loading time that is waited for."""


class TransientFailure(Exception):
    """A transient failure. `error` is for the caller if it persists."""

    def __init__(self, error: EngineError, after_s: float | None = None, *, is_loading: bool = False) -> None:
        super().__init__(error)
        self.error = error
        self.after_s = after_s
        self.is_loading = is_loading


@dataclass(frozen=True, slots=True)
class Patience:
    """How often an engine retries, and how long it waits."""

    attempts: int = 4
    """The most requests for one step."""
    wait_s: float = 0.5
    """Before the second try; doubled for each further one, up to 8 s, with jitter."""
    max_retry_after_s: float = 60.0
    """If a server asks for a longer wait, there is no retry."""
    connect_s: float = 5.0
    read_s: float = 600.0
    """Between two reads: a model may think for minutes before its first token."""
    loading_s: float = LOADING_SECONDS
    """How long a server that loads its model is asked again. One that says how long is waited for that long."""

    def pause_s(self, attempt: int, failure: TransientFailure, elapsed_s: float) -> float | None:
        """The seconds to wait before the next try; None if there is none. `elapsed_s` is since the first one."""
        asked_s, loads = failure.after_s, failure.is_loading and elapsed_s < self.loading_s
        if (asked_s or 0) > (_MAX_LOADING_S if loads else self.max_retry_after_s):
            return None
        if attempt >= self.attempts and not loads:
            return None
        jitter = random.random()  # noqa: S311 - it spreads retries, and is no secret
        if asked_s is not None:
            return asked_s * (1 + jitter / 10)
        return min(self.wait_s * 2.0 ** (attempt - 1), _MAX_WAIT_S) * (1 + jitter) / 2


PATIENCE = Patience()
