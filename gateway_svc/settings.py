"""The gateway's settings, from environment variables GATEWAY_…, validated at start."""

import shutil
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from gateway_svc.turns.budgets import LabelBudget
from service_kit.access.guard import Address, GuardSettings
from service_kit.access.roles import NAME_PATTERN
from service_kit.observing.logs import LogStyle

Policy = Literal["allow", "deny", "ask"]
TOOLS = ("read", "write", "edit", "glob", "grep", "bash", "webfetch")


def _http_url(value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return value.rstrip("/")


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _split_policies(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    parts = (part.partition("=") for part in _split(value))
    return {name.strip(): policy.strip() or "allow" for name, _, policy in parts}


def _known_tools(value: dict[str, Policy]) -> dict[str, Policy]:
    if unknown := sorted(value.keys() - set(TOOLS)):
        raise ValueError(f"there is no tool {', '.join(unknown)}; the tools are {', '.join(TOOLS)}")
    return value


def _all_allowed() -> dict[str, Policy]:
    return dict.fromkeys(TOOLS, "allow")


def _parse_budgets(value: Any) -> Any:
    return [LabelBudget.parse(part) for part in _split(value)] if isinstance(value, str) else value


LabelBudgetList = Annotated[list[LabelBudget], NoDecode, BeforeValidator(_parse_budgets)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
List = Annotated[list[str], NoDecode, BeforeValidator(_split)]
Ports = Annotated[list[int], NoDecode, BeforeValidator(_split)]
Policies = Annotated[dict[str, Policy], NoDecode, BeforeValidator(_split_policies), AfterValidator(_known_tools)]


class ListenSettings(GuardSettings):
    """What a probe of the gateway has to know."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_", env_ignore_empty=True)

    listen: Address = "127.0.0.1:50051"


class GatewaySettings(ListenSettings):
    """What a deployment chooses. An engine is configured when its URL is, or, for Claude, its command.

    Where nothing is configured, `claude` on PATH is: a deployment with another engine gets none by accident.
    """

    audit_target: str = "127.0.0.1:50052"
    audit_tls_ca: Path | None = Field(None, description="PEM; the connection to the audit service is TLS when set")
    audit_tls_cert: Path | None = Field(None, description="PEM; shown to an audit service that asks for it")
    audit_tls_key: Path | None = None
    audit_token_file: Path | None = Field(None, description="holds the token for the audit service, and nothing else")
    producer_name: str = Field("", pattern=f"{NAME_PATTERN}|^$", description="the gateway's name on the ledger's list")
    state_dir: Path = Field(default_factory=lambda: Path.home() / ".local" / "state" / "onrecord" / "gateway")
    workspace: Path = Field(Path(), description="where tools work; a folder under state_dir when not given")

    ollama_url: HttpUrl | None = None
    ollama_model: str | None = None
    ollama_num_ctx: int = Field(32768, ge=512, description="tokens; what Ollama would choose truncates in silence")
    openai_url: HttpUrl | None = None
    openai_model: str | None = None
    openai_api_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("GATEWAY_OPENAI_API_KEY", "OPENAI_API_KEY")
    )
    openai_api: Literal["chat", "responses"] | None = Field(
        None, description="by the server when not given: responses for api.openai.com, else chat completions"
    )
    openai_local: bool = Field(False, description="the server is one's own, so that its requests cost nothing")
    openai_context_tokens: int | None = Field(
        None, ge=512, description="of the model's context; where not given, what the price list knows of the model"
    )
    claude_command: str | None = Field(None, description="Claude's command-line agent, and arguments ahead of ours")
    claude_model: str = Field("", description="the program's own when not given")
    claude_permission_mode: str = Field("", description="the program's own when not given")
    claude_allowed_tools: List = Field(default_factory=list, description="tools that need no permission")
    audit_claude: bool = Field(False, description="whether Claude's own tool calls are put on the record")
    default_engine: str = Field("", description="the first configured one when not given")

    max_turns: int = Field(1000, ge=1, description="turns that run at once")
    max_queued_turns: int = Field(1000, ge=0, description="turns that may wait for their beginning")
    max_steps: int = Field(50, ge=1)
    max_turn_seconds: float = Field(600, gt=0)
    max_parallel_tools: int = Field(8, ge=1)

    budgets: LabelBudgetList = Field(default_factory=list, description="what sessions with a label may cost together")
    budgets_from_ledger: bool = Field(False, description="whether the ledger is asked what labels have spent")

    tools: Policies = Field(default_factory=_all_allowed)
    mcp_file: Path | None = Field(None, description="names the MCP servers whose tools are offered")
    tool_seconds: float = Field(300, gt=0, description="how long any tool call may take")
    answer_seconds: float = Field(300, gt=0, description="how long a call whose policy is `ask` waits for its answer")
    bash_sandbox: Literal["required", "auto", "off"] = "auto"
    bash_network: bool = False
    bash_seconds: float = Field(120, gt=0)
    bash_visible: List = Field(default_factory=list, description="more paths that commands may read in the sandbox")
    webfetch_allow: List = Field(default_factory=list, description="host or host:port that need not be public")
    webfetch_ports: Ports = Field(default_factory=lambda: [80, 443])

    audit_mode: Literal["best_effort", "strict"] = "best_effort"
    spool_sync: Literal["always", "interval", "never"] = "interval"
    spool_sync_interval_ms: int = Field(100, ge=1)
    spool_max_bytes: int = Field(2**30, ge=2**20)

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_style: LogStyle = "json"
    traces: bool | None = Field(None, description="when not given: on when OTEL_… names a collector")
    drain_seconds: float = Field(4, ge=0)

    @model_validator(mode="after")
    def _check_engines(self) -> Self:
        if not (self.ollama_url or self.openai_url or self.claude_command) and shutil.which("claude"):
            self.claude_command = "claude"
        models = {"ollama": self.ollama_model, "openai": self.openai_model, "claude": self.claude_model}
        wheres = {"ollama": self.ollama_url, "openai": self.openai_url, "claude": self.claude_command}
        engines = [name for name, where in wheres.items() if where]
        if not engines:
            raise ValueError(
                "no engine is configured: set GATEWAY_OLLAMA_URL, GATEWAY_OPENAI_URL or GATEWAY_CLAUDE_COMMAND,"
                " or put `claude` on PATH"
            )
        for name in engines:
            if not models[name] and name != "claude":
                raise ValueError(f"GATEWAY_{name.upper()}_MODEL: is not set; name the model that runs by default")
        self.default_engine = self.default_engine or engines[0]
        if self.default_engine not in engines:
            raise ValueError(f"GATEWAY_DEFAULT_ENGINE: must be a configured engine: {', '.join(engines)}")
        return self

    @model_validator(mode="after")
    def _check_audit_tls(self) -> Self:
        if (self.audit_tls_cert is None) != (self.audit_tls_key is None):
            missing, given = ("KEY", "CERT") if self.audit_tls_cert else ("CERT", "KEY")
            raise ValueError(f"GATEWAY_AUDIT_TLS_{missing}: is not set, but GATEWAY_AUDIT_TLS_{given} is: give both")
        if self.audit_tls_cert and not self.audit_tls_ca:
            raise ValueError("GATEWAY_AUDIT_TLS_CA: is not set: name the file of the CA that signed the audit service")
        return self

    @model_validator(mode="after")
    def _check_budgets(self) -> Self:
        if self.budgets_from_ledger and not self.keeps_record:
            raise ValueError("GATEWAY_BUDGETS_FROM_LEDGER: this deployment records nothing that a ledger could tell")
        return self

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        if "bash" in self.tools and self.bash_seconds >= self.tool_seconds:
            raise ValueError(
                "GATEWAY_BASH_SECONDS: must be less than GATEWAY_TOOL_SECONDS, or a command's output is lost"
            )
        return self

    @property
    def speaks_responses(self) -> bool:
        """Whether OpenAI's Responses API is spoken to the server at openai_url, or else its chat completions."""
        if self.openai_api is None:
            return urlsplit(self.openai_url or "").hostname == "api.openai.com"
        return self.openai_api == "responses"

    @property
    def keeps_record(self) -> bool:
        """Whether anything here is recorded: an HTTP engine is configured, or Claude's tool calls are to be audited."""
        return bool(self.ollama_url or self.openai_url or (self.claude_command and self.audit_claude))

    @model_validator(mode="after")
    def _check_folders(self) -> Self:
        self.state_dir = self.state_dir.expanduser().resolve()
        given = "workspace" in self.model_fields_set
        self.workspace = self.workspace.expanduser().resolve() if given else self.state_dir / "workspace"
        if self.state_dir.is_relative_to(self.workspace):
            raise ValueError("GATEWAY_STATE_DIR: must not lie in GATEWAY_WORKSPACE, since tools could read it there")
        self.mcp_file = self.mcp_file.expanduser().resolve() if self.mcp_file else None
        if self.mcp_file and self.mcp_file.is_relative_to(self.workspace):
            raise ValueError("GATEWAY_MCP_FILE: must not lie in GATEWAY_WORKSPACE, since tools could write it there")
        return self
