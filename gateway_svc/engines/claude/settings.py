"""The settings of Claude's command-line agent, and its kind of engine."""

import shlex
import shutil

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from gateway_svc.engines.claude.failures import ENGINE
from gateway_svc.engines.claude.runner import ClaudeRunner
from gateway_svc.engines.kinds import EngineSettings, Probe, RunnerContext, RunnerKind
from service_kit.setting_types import CommaList, Command, Text

PROGRAM = "claude"


class ClaudeSettings(EngineSettings):
    """The variables GATEWAY_CLAUDE_…, and GATEWAY_AUDIT_CLAUDE."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_CLAUDE_")

    configured_by = "command"

    command: Command | None = Field(None, description="Claude's command-line agent, and arguments before ours")
    model: Text = Field("", description="default: the program's own")
    permission_mode: Text = Field("", description="default: the program's own")
    allowed_tools: CommaList = Field(default_factory=list, description="tools that need no permission")
    audit: bool = Field(
        False, validation_alias="GATEWAY_AUDIT_CLAUDE", description="whether its tool calls and costs are recorded"
    )

    @property
    def keeps_record(self) -> bool:
        return self.is_configured and self.audit

    def configure_by_default(self) -> None:
        if shutil.which(PROGRAM):
            self.command = PROGRAM

    async def probe(self, ask: Probe) -> str:
        program = shlex.split(self.command or "")[0]
        return "" if shutil.which(program) else f"there is no program {program}"


def _build(settings: ClaudeSettings, surroundings: RunnerContext) -> ClaudeRunner:
    return ClaudeRunner(
        settings.command or "",
        settings.model,
        surroundings.state_dir,
        surroundings.workspace,
        price=surroundings.price,
        max_steps=surroundings.max_steps,
        max_turn_seconds=surroundings.max_turn_seconds,
        permission_mode=settings.permission_mode,
        allowed_tools=settings.allowed_tools,
        audit=surroundings.audit if settings.audit else None,
    )


KIND = RunnerKind(name=ENGINE, settings=ClaudeSettings, build=_build, provider="anthropic", lists_prices=True)
