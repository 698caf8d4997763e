"""The kinds of engines. Each module of this package that is an engine defines its `KIND`; no list names it.

Settings, assembly, health, prices, traces and the check of the documents iterate over engine_kinds().
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from pydantic import Field, SecretStr, model_validator

from gateway_svc import engines
from gateway_svc.discovery import discover
from gateway_svc.engines import Engine
from gateway_svc.errors import SettingsError
from gateway_svc.http_client import Tls, client_tls, tls_context
from recording.calls import Usage
from recording.channel.watched import WrongFile, warn_of_readers
from service_kit.setting_types import CertificateFile, HttpUrl, KeyFile, Text
from service_kit.settings import Settings, name_variable

if TYPE_CHECKING:
    from gateway_svc.engines.claude.record import ClaudeAudit
    from gateway_svc.turns.turn import Runner

Probe = Callable[[str, Tls], Awaitable[str]]
"""Requests a URL without a key; returns why nobody answers, or an empty string."""


class EngineSettings(Settings):
    """The settings of one engine. A kind's own class adds fields and the prefix of their variables."""

    configured_by: ClassVar[str]
    """The field that configures the engine when it is set."""

    @property
    def is_configured(self) -> bool:
        """Whether this deployment has configured the engine."""
        return bool(getattr(self, self.configured_by))

    @property
    def keeps_record(self) -> bool:
        """Whether the engine's tool calls and requests are recorded."""
        return self.is_configured

    @property
    def secrets(self) -> list[str]:
        """The keys among the settings, to be kept off the record."""
        values = (getattr(self, name) for name in type(self).model_fields)
        return [value.get_secret_value() for value in values if isinstance(value, SecretStr)]

    def configure_by_default(self) -> None:
        """Called if no engine is configured: configures this one if it is installed on this machine."""

    async def probe(self, ask: Probe) -> str:
        """Why the engine cannot be reached; empty if it can."""
        raise NotImplementedError

    @classmethod
    def variable(cls, field: str) -> str:
        """The environment variable of a field."""
        return f"{cls.model_config.get('env_prefix', '')}{field}".upper()


class HttpEngineSettings(EngineSettings):
    """The settings that all model servers over HTTP have."""

    configured_by = "url"

    url: HttpUrl | None = None
    model: Text | None = None
    client_cert: CertificateFile | None = Field(None, description="PEM; shown to a model server that asks for it")
    client_key: KeyFile | None = None

    @cached_property
    def tls(self) -> Tls:
        """What connections to the server trust and show. Raises SettingsError."""
        if not (self.client_cert and self.client_key):
            return tls_context
        try:
            tls = client_tls(self.client_cert, self.client_key)
        except WrongFile as error:
            raise SettingsError(name_variable(self, error)) from None
        warn_of_readers(self.client_key)
        return tls

    @property
    def is_local(self) -> bool:
        """Whether the server is self-hosted: its requests cost nothing, and it may silently cut a long conversation."""
        return False

    @property
    def context_limit(self) -> int | None:
        """The context size of the server's models in tokens; None: as the price list says for each."""
        return None

    async def probe(self, ask: Probe) -> str:
        """Why the server cannot be reached; empty if it can."""
        return await ask(self.url or "", self.tls)

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        if self.url and not self.model:
            raise ValueError(f"{self.variable('model')}: is not set; name the model that runs by default")
        return self

    @model_validator(mode="after")
    def _check_client_certificate(self) -> Self:
        cert, key = self.variable("client_cert"), self.variable("client_key")
        if (self.client_cert is None) != (self.client_key is None):
            missing, given = (key, cert) if self.client_cert else (cert, key)
            raise ValueError(f"{missing}: is not set, but {given} is: give both")
        if self.client_cert and self.url and not self.url.startswith("https:"):
            raise ValueError(f"{cert}: {self.variable('url')} is not https, and without TLS no certificate is shown")
        return self


S = TypeVar("S", bound=EngineSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind(Generic[S]):
    """What is known about an engine before one is built."""

    name: str
    """Its name in requests, events and rows."""
    settings: type[S]
    provider: str
    """The provider of its models: `gen_ai.provider.name` in traces, and for prices if the URL does not identify one."""
    lists_prices: bool = False
    """Whether all its models are the provider's own, so that its prices apply at any address."""

    @property
    def price_provider(self) -> str | None:
        """The provider whose prices apply if the URL does not identify one; None: the maker of each model."""
        return self.provider if self.lists_prices else None


H = TypeVar("H", bound=HttpEngineSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKind(Kind[H]):
    """A model server, driven by the gateway's own loop, one step at a time."""

    build: Callable[[H], Engine]


@dataclass(frozen=True, slots=True)
class RunnerContext:
    """What an engine with its own loop needs from the deployment."""

    state_dir: Path
    workspace: Path
    price: Callable[[str, Usage], int | None]
    max_steps: int
    max_turn_seconds: float
    audit: "ClaudeAudit | None"
    """None: it is not recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerKind(Kind[S]):
    """An engine with its own loop and its own tools."""

    build: "Callable[[S, RunnerContext], Runner]"


def engine_kinds() -> list[Kind[Any]]:
    """All kinds: model servers by name, then engines with their own loop. The first configured one is the default."""
    return sorted(discover(engines, Kind), key=lambda kind: (isinstance(kind, RunnerKind), kind.name))
