"""What is shown of names and ids that others chose: none that may be a sentence."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from intake_svc.dialects.base.table import BRANCH, REPOSITORY, Attributes, Dialect
from intake_svc.dialects.reading import Labelled
from intake_svc.names import branch_name, is_id, is_name, repository_name

_ERROR_TYPE = re.compile(r"[A-Za-z_][A-Za-z0-9_.:]{0,63}", re.ASCII)
_VERSION = re.compile(r"v?[0-9][A-Za-z0-9.+_-]{0,40}", re.ASCII)
_MCP_TOOL = re.compile(r"mcp__([A-Za-z0-9_.-]{1,64}?)__.+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Agent:
    """Who exported, as the resource says."""

    name: str
    version: str


def agent_of(dialect: Dialect, name: str, version: str) -> Agent:
    """The agent of a resource. What does not look like a name or a version is not shown."""
    shown = version if dialect.version_is_the_agents and _VERSION.fullmatch(version) else ""
    return Agent(name if is_name(name) else dialect.agent, shown)


def error_type(text: str) -> str:
    """The type of an error, `error` where it is told by something else."""
    return text if _ERROR_TYPE.fullmatch(text) else "error"


def model_name(text: str) -> str:
    """A model's name; empty where it may be something else, or is Micrometer's word for none."""
    return text if is_id(text) and text != "none" else ""


def mcp_server_of(tool: str) -> str:
    """The MCP server in a tool's name of the form mcp__SERVER__TOOL; empty for other tools."""
    found = _MCP_TOOL.fullmatch(tool)
    return found[1] if found else ""


def where(attributes: Attributes, sessions: Iterable[tuple[str, str, int]]) -> list[Labelled]:
    """Where sessions are, as attributes say. sessions: id, engine, and when, in milliseconds since 1970-01-01 UTC."""
    repository = repository_name(attributes.text(REPOSITORY))
    branch = branch_name(attributes.text(BRANCH))
    if not (repository or branch):
        return []
    return [Labelled(session, engine, repository, branch, at_ms) for session, engine, at_ms in sessions if session]
