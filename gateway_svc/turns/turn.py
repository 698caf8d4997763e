"""A turn as its runner sees it: from one user input to the final answer."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.messages import EncodedConversation, Message
from gateway_svc.stopping.turns import StoppableTurn
from gateway_svc.turns.account import TurnAccount
from gateway_svc.turns.events import TurnEvents
from recording.calls import Scope


async def _at_once() -> None:
    """Where nothing is kept, nothing is waited for."""


@dataclass(slots=True)
class Turn:
    """The input of a runner, which adds to the history through `append` and reports to the client through `events`."""

    scope: Scope
    system_prompt: str
    history: list[Message]
    """The session's messages, the user's input last. Only `append` adds to it."""
    append: Callable[[Message], None]
    """Adds a message to the history and to the conversation that is kept."""
    events: TurnEvents
    account: TurnAccount
    labels: Mapping[str, str] = field(default_factory=dict)
    """The session's."""
    owner: str = ""
    """The caller whose session it is; empty where callers have no names."""
    max_steps: int | None = None
    """The client's limit; None means the gateway's own."""
    contexts: dict[str, EncodedConversation] = field(default_factory=dict)
    """What runners keep of the conversation for the session's next turn, by their names."""
    stops: StoppableTurn = field(default_factory=StoppableTurn)
    """Which of its calls are stopped, and whether it is."""
    kept: Callable[[], Awaitable[object]] = _at_once
    """Returns when all that was added would survive the end of this process; raises StoreUnavailable."""
    started: float = field(default_factory=time.monotonic)


class Runner(Protocol):
    """Runs turns: the agent loop on an engine, or an engine with its own loop."""

    name: str
    """The engine's name."""
    default_model: str
    jail: str
    """What confines the programs that the gateway runs for its models (tools.kinds.Offered)."""

    async def run(self, turn: Turn) -> pb.StopReason.ValueType:
        """Runs the turn and returns why it stopped.

        Raises:
            GatewayError: for the caller; the history may then be incomplete.
        """
        ...

    async def aclose(self) -> None:
        """Closes connections and processes."""
        ...


@runtime_checkable
class ShadowRunner(Runner, Protocol):
    """A runner whose tools can be kept from running."""

    def in_shadow(self, done: Sequence[Message]) -> Runner:
        """A runner over the same engine that runs no tool and marks its rows.

        `done` are the messages that the original turn added.
        """
        ...
