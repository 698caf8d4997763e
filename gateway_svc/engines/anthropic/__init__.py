"""The engine anthropic: the Messages API, at Anthropic or at any server that has it."""

from typing import Literal

from pydantic import AliasChoices, Field
from pydantic_settings import SettingsConfigDict

from gateway_svc.engines.anthropic.messages import NAME, AnthropicEngine
from gateway_svc.engines.kinds import EngineKind, HttpEngineSettings
from service_kit.setting_types import Count, Secret


class AnthropicSettings(HttpEngineSettings):
    """The variables GATEWAY_ANTHROPIC_…"""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_ANTHROPIC_")

    api_key: Secret | None = Field(
        None, validation_alias=AliasChoices("GATEWAY_ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY")
    )
    max_tokens: Count = Field(16_384, description="of one answer, thinking included; the API requires a limit")
    thinking: Literal["adaptive"] | Count | None = Field(
        None, description="adaptive, or the model's thinking budget in tokens; default: the model's own"
    )
    context_tokens: Count | None = Field(None, ge=512, description="of the model's context; default: by the price list")

    @property
    def context_limit(self) -> int | None:
        return self.context_tokens


def _build(settings: AnthropicSettings) -> AnthropicEngine:
    return AnthropicEngine(
        settings.url or "",
        settings.model or "",
        api_key=settings.api_key.get_secret_value() if settings.api_key else None,
        max_tokens=settings.max_tokens,
        thinking=settings.thinking,
        tls=settings.tls,
    )


KIND = EngineKind(name=NAME, settings=AnthropicSettings, build=_build, provider=NAME, lists_prices=True)
