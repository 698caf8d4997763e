"""The door's settings, from environment variables INTAKE_…, validated at start."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from recording.channel.options import is_local
from recording.show import Arguments
from service_kit.producing.settings import ProducerSettings, check_client_tls
from service_kit.setting_types import (
    Bytes,
    CertificateFile,
    Count,
    Folder,
    KeyFile,
    ListenAddress,
    MetricsAddress,
    Seconds,
    SocketPath,
    Target,
    TokenFile,
)
from service_kit.settings import Settings


class StateSettings(Settings):
    """Where the door keeps its state."""

    model_config = SettingsConfigDict(env_prefix="INTAKE_")

    state_dir: Folder = Field(Path("~/.local/state/onrecord/intake"), validate_default=True)


class IntakeSettings(StateSettings, ProducerSettings):
    """What a deployment chooses."""

    model_config = SettingsConfigDict(env_prefix="INTAKE_")

    listen: ListenAddress = "127.0.0.1:4317"
    http_listen: MetricsAddress = Field("127.0.0.1:4318", description="for OTLP over HTTP")
    hook_socket: SocketPath | None = Field(
        None, description="a Unix socket for the hooks of this user's agents, beside INTAKE_HTTP_LISTEN"
    )

    max_message_bytes: Bytes = Field(64 * 2**20, ge=2**20, le=2**30, description="one request, unpacked")
    max_waiting_bytes: Bytes = Field(256 * 2**20, ge=2**20, description="of all requests that are not answered yet")
    max_calls: Count = Field(1000, description="requests at once of all clients")

    stops_target: Target | None = Field(None, description="a gateway whose stops apply to the hooks of agents here")
    stops_tls_ca: CertificateFile | None = Field(None, description="PEM; when set, that gateway is called with TLS")
    stops_tls_cert: CertificateFile | None = Field(None, description="PEM; shown to a gateway that asks for it")
    stops_tls_key: KeyFile | None = None
    stops_token_file: TokenFile | None = Field(None, description="a token for that gateway, of the role reader")

    arguments: Arguments = Field("shown", description="what rows keep of arguments at most")
    claude_signal: Literal["logs", "traces", "both"] = Field(
        "logs", description="which signal tells of a session of Claude Code that sends both; both: each, as it comes"
    )
    answer_after: Literal["spool", "ledger"] = Field(
        "spool", description="whether an answer waits for this machine's disk, or for the ledger's"
    )
    join_seconds: Seconds = Field(
        10, description="how long a call that a hook told of waits for the agent's telemetry of it; then it is a row"
    )
    open_call_seconds: Seconds = Field(
        86_400, description="how long a call may be open; then it is on the record as interrupted"
    )
    answer_seconds: Seconds = Field(10, description="how long an answer waits for the ledger; then the client is told")

    @model_validator(mode="after")
    def _check_stops(self) -> Self:
        check_client_tls(self, "stops", "the gateway")
        return self

    @model_validator(mode="after")
    def _check_http(self) -> Self:
        if not (self.tls_cert or self.allow_plaintext_on_network or is_local(self.http_listen)):
            raise ValueError(
                f"INTAKE_HTTP_LISTEN: {self.http_listen} can be reached from other machines, and there is no TLS: set "
                "INTAKE_TLS_CERT and INTAKE_TLS_KEY, listen on 127.0.0.1, or, where the network is trusted, set "
                "INTAKE_ALLOW_PLAINTEXT_ON_NETWORK=true"
            )
        return self
