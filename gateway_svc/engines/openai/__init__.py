"""The engine openai: either of OpenAI's APIs, at OpenAI or at any server that speaks it."""

from typing import Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field
from pydantic_settings import SettingsConfigDict

from gateway_svc.engines import Engine
from gateway_svc.engines.kinds import EngineKind, HttpEngineSettings
from gateway_svc.engines.openai.chat import OpenAIEngine
from gateway_svc.engines.openai.responses import ResponsesEngine
from service_kit.setting_types import Count, Secret

NAME = "openai"


class OpenAISettings(HttpEngineSettings):
    """The variables GATEWAY_OPENAI_…"""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_OPENAI_")

    api_key: Secret | None = Field(None, validation_alias=AliasChoices("GATEWAY_OPENAI_API_KEY", "OPENAI_API_KEY"))
    api: Literal["chat", "responses"] | None = Field(
        None, description="default: responses for api.openai.com, chat for all others"
    )
    local: bool = Field(False, description="the server is self-hosted: its requests cost nothing")
    context_tokens: Count | None = Field(None, ge=512, description="of the model's context; default: by the price list")

    @property
    def is_local(self) -> bool:
        return self.local

    @property
    def context_limit(self) -> int | None:
        return self.context_tokens

    @property
    def speaks_responses(self) -> bool:
        """Whether to use the Responses API, or else chat completions."""
        if self.api is None:
            return urlsplit(self.url or "").hostname == "api.openai.com"
        return self.api == "responses"


def _build(settings: OpenAISettings) -> Engine:
    engine = ResponsesEngine if settings.speaks_responses else OpenAIEngine
    key = settings.api_key.get_secret_value() if settings.api_key else None
    return engine(settings.url or "", settings.model or "", api_key=key, tls=settings.tls)


KIND = EngineKind(name=NAME, settings=OpenAISettings, build=_build, provider=NAME)
