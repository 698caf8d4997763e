"""The kinds of engines. Each module of this package that is an engine offers its own as `KIND`, and no list names it.

Settings, wiring, health, prices, traces and the check of the documents iterate over engine_kinds().
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from pydantic import SecretStr, model_validator

from gateway_svc import engines
from gateway_svc.discovery import discover
from gateway_svc.engines import Engine
from recording.calls import Usage
from service_kit.setting_types import HttpUrl, Text
from service_kit.settings import Settings

if TYPE_CHECKING:
    from gateway_svc.engines.claude.record import ClaudeAudit
    from gateway_svc.turns.turn import Runner

Probe = Callable[[str], Awaitable[str]]
"""Asks a URL, without a key; returns why nobody is there, or an empty text."""


class EngineSettings(Settings):
    """What a deployment says of one engine. A kind's own class adds its fields, and the prefix of their variables."""

    configured_by: ClassVar[str]
    """The field that configures the engine by being set."""

    @property
    def is_configured(self) -> bool:
        """Whether this deployment has the engine."""
        return bool(getattr(self, self.configured_by))

    @property
    def keeps_record(self) -> bool:
        """Whether what the engine does is put on the record."""
        return self.is_configured

    @property
    def secrets(self) -> list[str]:
        """The keys among the settings, which are kept off the record."""
        values = (getattr(self, name) for name in type(self).model_fields)
        return [value.get_secret_value() for value in values if isinstance(value, SecretStr)]

    def configure_by_default(self) -> None:
        """Configures the engine where no other one is, if it can be found on this machine."""

    async def probe(self, ask: Probe) -> str:
        """Why the engine cannot be reached; empty when it can."""
        raise NotImplementedError

    @classmethod
    def variable(cls, field: str) -> str:
        """The environment variable of a field."""
        return f"{cls.model_config.get('env_prefix', '')}{field}".upper()


class HttpEngineSettings(EngineSettings):
    """What every model server that is reached by HTTP is told by."""

    configured_by = "url"

    url: HttpUrl | None = None
    model: Text | None = None

    @property
    def is_local(self) -> bool:
        """Whether the server is one's own: its requests cost nothing, and it may cut a long conversation in silence."""
        return False

    @property
    def context_limit(self) -> int | None:
        """The context of the server's models in tokens; None: what the price list knows of each."""
        return None

    async def probe(self, ask: Probe) -> str:
        """See EngineSettings."""
        return await ask(self.url or "")

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        if self.url and not self.model:
            raise ValueError(f"{self.variable('model')}: is not set; name the model that runs by default")
        return self


S = TypeVar("S", bound=EngineSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind(Generic[S]):
    """What is known of an engine before any is built."""

    name: str
    """Its name in requests, events and rows."""
    settings: type[S]
    provider: str
    """Whose models it runs: `gen_ai.provider.name` in traces, and in prices where the URL does not tell it."""
    lists_prices: bool = False
    """Whether all its models are the provider's own, and so have its prices behind any address."""

    @property
    def price_provider(self) -> str | None:
        """The provider whose prices hold where the URL does not tell it; None: those of a model's maker."""
        return self.provider if self.lists_prices else None


H = TypeVar("H", bound=HttpEngineSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKind(Kind[H]):
    """A model server, which the gateway's own loop asks for one step at a time."""

    build: Callable[[H], Engine]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an engine with a loop of its own needs of the deployment."""

    state_dir: Path
    workspace: Path
    price: Callable[[str, Usage], int | None]
    max_steps: int
    max_turn_seconds: float
    audit: "ClaudeAudit | None"
    """None: it is not put on the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerKind(Kind[S]):
    """An engine that brings its own loop and its own tools."""

    build: "Callable[[S, Surroundings], Runner]"


def engine_kinds() -> list[Kind[Any]]:
    """All kinds: model servers by name, then engines with a loop of their own. The first configured is the default."""
    return sorted(discover(engines, Kind), key=lambda kind: (isinstance(kind, RunnerKind), kind.name))
