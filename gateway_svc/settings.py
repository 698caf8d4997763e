"""The gateway's settings, from environment variables GATEWAY_…, validated at start."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from gateway_svc.turns.budgets import LabelBudget
from gateway_svc.workers.cores import cores
from recording.show import Arguments
from service_kit.access.guard import GuardSettings
from service_kit.access.roles import CallerName
from service_kit.producing.settings import ProducerSettings
from service_kit.rules.file import check_rules
from service_kit.setting_types import (
    Bytes,
    Count,
    CountOrZero,
    DatabaseUrl,
    Folder,
    HomePath,
    KeysFile,
    ListenAddress,
    Milliseconds,
    ReadableFile,
    Seconds,
    Text,
    file_with,
    split_commas,
)
from service_kit.settings import Settings, sentences_of, unknown_variables

if TYPE_CHECKING:
    from gateway_svc.engines.kinds import EngineSettings

Policy = Literal["allow", "deny", "ask"]


def split_policies(value: Any) -> Any:
    """The policies by tool of a text such as `read,bash=ask`; what is no text is returned as it is.

    Raises:
        ValueError: it names no tool, or one twice.
    """
    if not isinstance(value, str):
        return value
    parts = [part.partition("=") for part in split_commas(value)]
    policies = {name.strip(): policy.strip() if given else "allow" for name, given, policy in parts}
    if len(policies) < len(parts):
        raise ValueError("names a tool twice")
    return policies


def _parse_budgets(value: Any) -> Any:
    return [LabelBudget.parse(part) for part in split_commas(value)] if isinstance(value, str) else value


CallerNames = Annotated[list[CallerName], NoDecode, BeforeValidator(split_commas)]
LabelBudgetList = Annotated[list[LabelBudget], NoDecode, BeforeValidator(_parse_budgets)]
RulesFile = Annotated[HomePath, file_with(check_rules)]
Policies = Annotated[dict[Text, Policy], NoDecode, BeforeValidator(split_policies)]


class StateSettings(Settings):
    """Where the gateway keeps its state."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_")

    state_dir: HomePath = Field(Path("~/.local/state/onrecord/gateway"), validate_default=True)


class SessionsSettings(StateSettings):
    """Where the gateway keeps sessions, and how."""

    sessions: DatabaseUrl | None = None
    sessions_key_file: KeysFile | None = None


class ListenSettings(GuardSettings):
    """What a probe of the gateway has to know."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_")

    listen: ListenAddress = "127.0.0.1:50051"


class GatewaySettings(ListenSettings, ProducerSettings):
    """What a deployment chooses. What it says of each engine is with the engine, see gateway_svc.engines.kinds.

    Where no engine is configured, `claude` on PATH is: a deployment with another engine gets none by accident.
    """

    model_config = SettingsConfigDict(env_prefix="GATEWAY_")

    _engines: "dict[str, EngineSettings]" = PrivateAttr(default_factory=dict)

    max_message_bytes: Bytes = Field(
        3 * 2**20, ge=2**20, le=2**30, description="one request, unpacked: a turn's texts have 1 MiB each"
    )

    state_dir: Folder = Field(Path("~/.local/state/onrecord/gateway"), validate_default=True)
    workspace: Folder = Field(Path(), description="where tools work; a folder under state_dir when not given")

    default_engine: Text = Field("", description="the first configured one when not given")

    workers: int = Field(1, ge=0, le=256, description="processes that serve together, on one port; 0: the cores")

    max_turns: Count = Field(1000, description="turns that run at once")
    max_queued_turns: CountOrZero = Field(1000, description="turns that may wait for their beginning")
    max_steps: Count = 50
    max_turn_seconds: Seconds = 600
    max_parallel_tools: Count = 8

    sessions: DatabaseUrl | None = Field(
        None, description="a PostgreSQL database that gateways share; files in the state directory when not given"
    )
    sessions_key_file: KeysFile | None = Field(
        None, description="keys that sessions are encrypted by: the first one encrypts, all decrypt; in clear without"
    )
    conversations_sync: Literal["turns", "never"] = Field(
        "turns", description="whether a turn's begin and end wait until the disk has the conversation"
    )
    conversations_memory_bytes: Bytes = Field(
        2**28, description="for conversations in memory, so that their next turns read nothing; 0 for none"
    )

    session_retention_days: Annotated[int, Field(ge=1, le=36_500)] | None = Field(
        None, description="sessions that were not used for so long are removed; none when not given"
    )
    max_prompt_bytes: Bytes = Field(2**18, le=2**20, description="the longest system prompt of a session")

    budgets: LabelBudgetList = Field(default_factory=list, description="what sessions with a label may cost together")
    budgets_from_ledger: bool = Field(False, description="whether the ledger is asked what labels have spent")
    budgets_producers: CallerNames = Field(
        default_factory=list, description="whose costs count besides those that this gateway's own name recorded"
    )

    tools: Policies = Field(default_factory=dict, description="all that there are, allowed, when not given")
    mcp_file: ReadableFile | None = Field(None, description="names the MCP servers whose tools are offered")
    rules_file: RulesFile | None = Field(None, description="rules on arguments: see docs/rules.md")
    tool_seconds: Seconds = Field(300, description="how long any tool call may take")
    answer_seconds: Seconds = Field(300, description="how long a call whose policy is `ask` waits for its answer")

    approval_by_others: bool = Field(
        default=False, description="whether nobody, approver or not, may answer the calls of their own turns"
    )

    audit_mode: Literal["best_effort", "strict"] = "best_effort"
    arguments: Arguments = Field("shown", description="what rows keep of arguments at most")
    spool_sync: Literal["always", "interval", "never"] = "interval"
    spool_sync_interval_ms: Milliseconds = 100

    traces: bool | None = Field(None, description="when not given: on when OTEL_… names a collector")

    @model_validator(mode="after")
    def _read_engines(self) -> Self:
        from gateway_svc.engines.kinds import engine_kinds  # who only asks a gateway need not load its engines

        kinds, wrong = engine_kinds(), []
        for kind in kinds:
            try:
                self._engines[kind.name] = kind.settings()
            except ValidationError as error:
                wrong += sentences_of(kind.settings, error)
        if wrong:
            raise ValueError("\n".join(wrong))
        if not self.engines:
            for settings in self._engines.values():
                settings.configure_by_default()
        if not self.engines:
            names = ", ".join(kind.settings.variable(kind.settings.configured_by) for kind in kinds)
            raise ValueError(f"no engine is configured: set one of {names}, or put `claude` on PATH")
        self.default_engine = self.default_engine or next(iter(self.engines))
        if self.default_engine not in self.engines:
            raise ValueError(f"GATEWAY_DEFAULT_ENGINE: must be a configured engine: {', '.join(self.engines)}")
        return self

    @property
    def engines(self) -> dict[str, Any]:
        """The settings of the configured engines by name, those with a loop of their own last."""
        return {name: settings for name, settings in self._engines.items() if settings.is_configured}

    @model_validator(mode="after")
    def _check_budgets(self) -> Self:
        if self.budgets_from_ledger and not self.keeps_record:
            raise ValueError("GATEWAY_BUDGETS_FROM_LEDGER: this deployment records nothing that a ledger could tell")
        if self.budgets_producers and not self.budgets_from_ledger:
            raise ValueError("GATEWAY_BUDGETS_PRODUCERS: needs GATEWAY_BUDGETS_FROM_LEDGER, which asks what they spent")
        return self

    @model_validator(mode="after")
    def _check_workers(self) -> Self:
        if self.workers > 1 and self.listen.startswith("unix:"):
            raise ValueError("GATEWAY_WORKERS: workers cannot share a Unix socket: listen on host:port, or set 1")
        if self.workers != 1 and self.sessions is not None:
            raise ValueError(
                "GATEWAY_WORKERS: workers cannot share GATEWAY_SESSIONS: set 1, and start a gateway more for each core"
            )
        return self

    @property
    def number_of_workers(self) -> int:
        """How many processes serve."""
        return 1 if self.listen.startswith("unix:") else self.workers or cores()

    @property
    def keeps_record(self) -> bool:
        """Whether anything that runs here is put on the record."""
        return any(settings.keeps_record for settings in self.engines.values())

    @model_validator(mode="after")
    def _check_folders(self) -> Self:
        self.state_dir = self.state_dir.resolve()
        given = "workspace" in self.model_fields_set
        self.workspace = self.workspace.resolve() if given else self.state_dir / "workspace"
        if self.state_dir.is_relative_to(self.workspace):
            raise ValueError("GATEWAY_STATE_DIR: must not lie in GATEWAY_WORKSPACE, since tools could read it there")
        self.mcp_file = self.mcp_file.resolve() if self.mcp_file else None
        if self.mcp_file and self.mcp_file.is_relative_to(self.workspace):
            raise ValueError("GATEWAY_MCP_FILE: must not lie in GATEWAY_WORKSPACE, since tools could write it there")
        return self


def unknown_settings() -> list[str]:
    """A sentence for each variable that begins as the gateway's do and is no setting of any part of it."""
    from gateway_svc.engines.kinds import engine_kinds
    from gateway_svc.tools.jail.sandbox import JailSettings
    from gateway_svc.tools.kinds import kinds as tool_kinds

    parts = [*(kind.settings for kind in engine_kinds()), *(kind.settings for kind in tool_kinds().values())]
    return unknown_variables("GATEWAY_", GatewaySettings, JailSettings, *parts)
