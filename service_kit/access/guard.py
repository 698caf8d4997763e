"""The guard between the network and a service, built from its settings."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Self

import grpc
from pydantic import Field, model_validator

from recording.channel.options import Options, is_local
from recording.channel.watched import Watched, WrongFile, warn_of_readers
from service_kit.access.callers import current_caller
from service_kit.access.calls import CallsInterceptor, Count
from service_kit.access.interceptor import AccessInterceptor, Rules
from service_kit.access.limits import LimitSettings, RateInterceptor
from service_kit.access.roles import check_callers, load_callers
from service_kit.access.tls import ServerFiles, server_credentials
from service_kit.observing.logs import LogLevel, LogStyle
from service_kit.setting_types import (
    CertificateFile,
    KeyFile,
    ListenAddress,
    MetricsAddress,
    Seconds,
    SecondsOrZero,
    file_with,
)
from service_kit.settings import name_variable, refuse

CallersFile = Annotated[Path, file_with(check_callers)]


class GuardSettings(LimitSettings):
    """The settings that both services have, under prefixes of their own."""

    listen: ListenAddress

    tls_cert: CertificateFile | None = Field(None, description="PEM; with tls_key")
    tls_key: KeyFile | None = None
    tls_client_ca: CertificateFile | None = Field(None, description="PEM; clients must show a certificate of its")
    tokens_file: CallersFile | None = Field(None, description="who may call: see service_kit.access.roles")
    allow_plaintext_on_network: bool = Field(False, description="listen beyond loopback although without TLS")
    reflection: bool | None = Field(None, description="unset: where only this machine can connect")
    health_seconds: Seconds = Field(10, description="how often it is looked whether the service can do its work")
    drain_seconds: SecondsOrZero = Field(4, description="how long what runs at SIGTERM may take to come to its end")
    log_level: LogLevel = "info"
    log_style: LogStyle = "auto"

    metrics_listen: MetricsAddress = Field("", description="for Prometheus; nowhere when empty")
    metrics_allow_network: bool = Field(False, description="serve metrics beyond loopback, in plain text to anybody")

    @model_validator(mode="after")
    def _check_guard(self) -> Self:
        prefix = self.model_config.get("env_prefix", "")
        if (self.tls_cert is None) != (self.tls_key is None):
            missing, given = ("KEY", "CERT") if self.tls_cert else ("CERT", "KEY")
            raise ValueError(f"{prefix}TLS_{missing}: is not set, but {prefix}TLS_{given} is: give both")
        if self.tls_client_ca and not self.tls_cert:
            raise ValueError(f"{prefix}TLS_CLIENT_CA: needs {prefix}TLS_CERT and {prefix}TLS_KEY")
        if self.tls_client_ca and not self.tokens_file:
            raise ValueError(
                f"{prefix}TLS_CLIENT_CA: needs {prefix}TOKENS_FILE, which says what holders of certificates may do"
            )
        if not (self.tls_cert or self.allow_plaintext_on_network or is_local(self.listen)):
            raise ValueError(
                f"{prefix}LISTEN: {self.listen} can be reached from other machines, and there is no TLS: set "
                f"{prefix}TLS_CERT and {prefix}TLS_KEY, listen on 127.0.0.1, or, where the network is trusted, set "
                f"{prefix}ALLOW_PLAINTEXT_ON_NETWORK=true"
            )
        return self

    @model_validator(mode="after")
    def _check_metrics(self) -> Self:
        prefix = self.model_config.get("env_prefix", "")
        if self.metrics_listen and not (self.metrics_allow_network or is_local(self.metrics_listen)):
            raise ValueError(
                f"{prefix}METRICS_LISTEN: {self.metrics_listen} can be reached from other machines, and metrics are "
                f"served in plain text to anybody: listen on 127.0.0.1, or set {prefix}METRICS_ALLOW_NETWORK=true"
            )
        return self

    @property
    def reflects(self) -> bool:
        """Whether clients may ask the server for its descriptions."""
        return is_local(self.listen) if self.reflection is None else self.reflection

    @property
    def server_files(self) -> ServerFiles | None:
        """What the server shows; None for plain text."""
        return ServerFiles(self.tls_cert, self.tls_key, self.tls_client_ca) if self.tls_cert and self.tls_key else None


@dataclass(frozen=True, slots=True)
class Guard:
    """What a server is built and bound with."""

    access: AccessInterceptor | None
    """None: everybody may do everything."""
    calls: CallsInterceptor
    rate: RateInterceptor | None
    options: Options
    credentials: grpc.ServerCredentials | None
    """None: plain text."""

    @property
    def interceptors(self) -> tuple[grpc.aio.ServerInterceptor, ...]:
        """Outermost first: who calls, then how many at once, then how often."""
        return tuple(one for one in (self.access, self.calls, self.rate) if one)

    @contextmanager
    def entering(self, method: str, shown: Sequence[str], peer: str) -> Iterator[None]:
        """Lets in a call that comes by another way than gRPC, by the same rules, while the body runs.

        Args:
            method: the RPC that it stands for, /package.Service/Method.
            shown: the values of its header `authorization`.
            peer: the address that it comes from.

        Raises:
            Unauthenticated, PermissionDenied, Overloaded, RateExceeded: it is not let in.
        """
        if self.access:
            self.access.admit(method, shown)
        with self.calls.one():
            if self.rate:
                caller = current_caller()
                self.rate.take(caller.name if caller else peer)
            yield


@dataclass(frozen=True, slots=True)
class SharedLimits:
    """Who counts for all processes of a service."""

    calls: Count
    health_calls: Count
    take_token: Callable[[str, float, float], float]
    """See RateInterceptor."""


def open_guard(settings: GuardSettings, rules: Rules, shared: SharedLimits | None = None) -> Guard:
    """Reads the files that settings name; without a tokens file everybody may do everything.

    shared: where limits are counted that other processes have a part in.

    Raises:
        SystemExit: with code 2, after a sentence, when a file cannot be used.
    """
    warn_of_readers(settings.tls_key)
    access = None
    try:
        credentials = server_credentials(settings.server_files) if settings.server_files else None
        if path := settings.tokens_file:
            access = AccessInterceptor(rules, Watched([path], partial(load_callers, path), lines=True))
    except WrongFile as error:
        refuse([name_variable(settings, error)])
    take_token = shared.take_token if shared else None
    rate = RateInterceptor(settings.rate_per_second, take_token=take_token) if settings.rate_per_second else None
    calls = CallsInterceptor(settings.max_calls, *((shared.calls, shared.health_calls) if shared else ()))
    return Guard(access, calls, rate, settings.server_options(), credentials)
