"""The file that names MCP servers: the common JSON form, `{"mcpServers": {NAME: {…}}}`, or the same as TOML."""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from gateway_svc.errors import SettingsError
from gateway_svc.tools.ruling import Policy
from service_kit.setting_types import HttpUrl, Seconds

VARIABLE = "GATEWAY_MCP_FILE"
_SERVER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,31}")
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_OWN_PREFIXES = ("GATEWAY_", "AUDIT_")
_OWN_NAMES = frozenset({"OPENAI_API_KEY", "ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN"})


class ServerSettings(BaseModel):
    """One server: a program (`command`) or an address (`url`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["stdio", "http", "streamable-http"] | None = None
    command: str = ""
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    """Added to the few variables that every server gets; `${NAME}` is replaced from the gateway's environment."""
    cwd: Path | None = None
    url: HttpUrl = ""
    headers: dict[str, str] = {}
    """Sent with each request; `${NAME}` as in env."""
    disabled: bool = False
    timeout_seconds: Seconds = 60
    """How long a call may take."""
    start_seconds: Seconds = Field(30, le=600)
    """How long the server may take to be ready at the first attempt; doubled at each further one, up to 600."""
    policy: Policy = "allow"
    """The policy of tools that `tools` does not name."""
    tools: dict[str, Policy] = {}
    record: dict[str, tuple[str, ...]] = {}
    """By tool: the arguments whose values are recorded; all others are shown by name, type and size."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.command) == bool(self.url):
            raise ValueError("name either a command or a url")
        if (self.type or "stdio") != "stdio" and not self.url:
            raise ValueError(f"a server of type {self.type} needs a url")
        if self.type == "stdio" and not self.command:
            raise ValueError("a server of type stdio needs a command")
        return self

    _secrets: tuple[str, ...] = PrivateAttr(())

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that are never shown: all headers, and values from the gateway's environment."""
        return self._secrets


def load_servers(path: Path, environment: Mapping[str, str]) -> dict[str, ServerSettings]:
    """The servers that are not disabled, by name.

    Raises:
        SettingsError: the file cannot be read or is invalid; the message quotes no value.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise SettingsError(f"{VARIABLE}: {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        place = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise SettingsError(f"{VARIABLE}: {path} is not valid {kind}{place}") from None
    entries = content.get("mcpServers") if isinstance(content, dict) else None
    if not isinstance(entries, dict) or len(content) != 1:
        raise SettingsError(f"{VARIABLE}: {path} must hold the one key mcpServers, with a server under each name")
    servers = {name: _load(name, entry, environment) for name, entry in entries.items()}
    return {name: server for name, server in servers.items() if not server.disabled}


def _load(name: str, entry: Any, environment: Mapping[str, str]) -> ServerSettings:
    if not _SERVER_NAME.fullmatch(name):
        raise SettingsError(f"{VARIABLE}: a server's name has 1 to 32 letters, digits, - and _; {name[:64]!r} does not")
    try:
        server = ServerSettings.model_validate(entry)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join((name, *map(str, problem["loc"])))
        raise SettingsError(f"{VARIABLE}: {place}: {problem['msg'].removeprefix('Value error, ')}") from None
    filled = {
        field: {key: _fill(f"{name}.{field}.{key}", value, environment) for key, value in given.items()}
        for field, given in (("env", server.env), ("headers", server.headers))
    }
    complete = server.model_copy(update=filled)
    taken = (value for key, value in complete.env.items() if value != server.env[key])
    complete._secrets = (*complete.headers.values(), *taken)
    return complete


def _fill(place: str, value: str, environment: Mapping[str, str]) -> str:
    def look_up(reference: re.Match[str]) -> str:
        variable = reference[1]
        if variable in _OWN_NAMES or variable.startswith(_OWN_PREFIXES):
            raise SettingsError(f"{VARIABLE}: {place}: {variable} is the gateway's own, and goes to no server")
        if variable not in environment:
            raise SettingsError(f"{VARIABLE}: {place}: the environment variable {variable} is not set")
        return environment[variable]

    return _REFERENCE.sub(look_up, value)
