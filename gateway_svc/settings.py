"""The gateway's settings, from environment variables GATEWAY_…, validated at start."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from service_kit.logs import LogStyle


def _default_state_dir() -> Path:
    return Path.home() / ".local" / "state" / "onrecord" / "gateway"


def _http_url(value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return value.rstrip("/")


HttpUrl = Annotated[str, AfterValidator(_http_url)]


class GatewaySettings(BaseSettings):
    """What a deployment chooses. An engine is configured when its URL is."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_", env_ignore_empty=True)

    listen: str = "127.0.0.1:50051"
    audit_target: str = "127.0.0.1:50052"
    state_dir: Path = Field(default_factory=_default_state_dir)
    workspace: Path | None = None

    ollama_url: HttpUrl | None = None
    ollama_model: str | None = None
    ollama_num_ctx: int = Field(32768, ge=512)
    openai_url: HttpUrl | None = None
    openai_model: str | None = None
    openai_api_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("GATEWAY_OPENAI_API_KEY", "OPENAI_API_KEY")
    )
    openai_local: bool = False
    default_engine: str | None = None

    max_steps: int = Field(50, ge=1)
    max_turn_seconds: float = Field(600, gt=0)
    max_parallel_tools: int = Field(8, ge=1)

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_style: LogStyle = "json"
    drain_seconds: float = Field(4, ge=0)
