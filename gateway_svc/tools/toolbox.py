"""The tools that a deployment offers, and how they run."""

import asyncio
import time
import traceback
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import structlog
from onrecord.common.v1 import common_pb2

from gateway_svc.errors import SettingsError
from gateway_svc.messages import ToolDefinition
from gateway_svc.stopping.turns import StoppableTurn
from gateway_svc.tools import RemoteTool, Tool, ToolContext, ToolError
from gateway_svc.tools.arguments import ArgumentsError, json_schema, parse_arguments, parse_object
from gateway_svc.tools.output import shorten
from gateway_svc.tools.ruling import BY_POLICY, UNCONFINED, ArgumentRules, Policy, Ruling, rule_on_arguments
from recording.calls import Scope, ToolCall, ToolResult
from service_kit.producing.stop import decision, told, why_denied

MAX_REMEMBERED = 10_000
"""How many names of remote tools are remembered."""

log = structlog.get_logger(__name__)


class RemoteTools(Protocol):
    """Tools that run elsewhere, and may appear and disappear."""

    @property
    def revision(self) -> int:
        """Changes whenever tools() does."""
        ...

    def tools(self) -> Mapping[str, RemoteTool]:
        """The currently known tools, by name."""
        ...

    def policy(self, name: str) -> Policy:
        """The policy of one of them."""
        ...

    def software(self, name: str) -> tuple[str, str]:
        """The name and the version of the server that has one of them."""
        ...


class NoRemoteTools:
    """No remote tools."""

    revision = 0

    def tools(self) -> Mapping[str, RemoteTool]:
        return {}

    def policy(self, name: str) -> Policy:
        return "allow"

    def software(self, name: str) -> tuple[str, str]:
        return "", ""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A checked call."""

    tool: Tool | RemoteTool
    arguments: Any


class Toolbox:
    """Tools by name, with the policy and the limits of each call."""

    def __init__(
        self,
        tools: Sequence[Tool],
        *,
        remote: RemoteTools | None = None,
        jail: str = "",
        unconfined: Collection[str] = (),
        rules: ArgumentRules | None = None,
        policies: Mapping[str, Policy] | None = None,
        timeout_seconds: float = 300,
        max_characters: int = 50_000,
        max_lines: int = 2_000,
    ) -> None:
        """A tool that `policies` does not name is allowed.

        `jail` says what confines the programs that some of them run, and `unconfined` names the tools whose programs
        nothing confines (kinds.Offered). `rules` decide before policies do, but never against `deny`.
        `timeout_seconds` ends any call, so it should exceed the tools' own limits.
        `max_characters` and `max_lines` bound what a model sees of one result.

        Raises:
            SettingsError: a policy names a tool that is not among `tools`.
        """
        self._tools = {tool.name: tool for tool in tools}
        if len(self._tools) != len(tools):
            raise ValueError("two tools have one name")
        self.jail = jail
        self._unconfined = frozenset(unconfined)
        self._rules = rules
        self._remote = remote or NoRemoteTools()
        self._policies = dict(policies or {})
        if strangers := sorted(self._policies.keys() - self._tools.keys()):
            raise SettingsError(f"a tool policy names {', '.join(strangers)}; the tools are {', '.join(self._tools)}")
        self._offered: dict[str, frozenset[str]] = {}
        """The parameters of remote tools that were ever offered: a call may come when its tool is gone again."""
        self._timeout_seconds = timeout_seconds
        self._max_characters = max_characters
        self._max_lines = max_lines
        self._definitions = [
            ToolDefinition(tool.name, tool.description, json_schema(tool.parameters))
            for tool in tools
            if self.policy(tool.name) != "deny"
        ]

    @property
    def names(self) -> frozenset[str]:
        """The names of the gateway's own tools."""
        return frozenset(self._tools)

    @property
    def revision(self) -> int:
        """Changes whenever definitions() does."""
        return self._remote.revision

    def definitions(self) -> list[ToolDefinition]:
        """The tools' definitions for a model, without denied ones."""
        remote = [
            ToolDefinition(tool.name, tool.description, tool.schema)
            for name, tool in self._remote.tools().items()
            if self.policy(name) != "deny"
        ]
        if len(self._offered) > MAX_REMEMBERED:
            self._offered.clear()
        self._offered.update((definition.name, _parameters(definition.parameters)) for definition in remote)
        return [*self._definitions, *remote]

    def parameters(self, name: str) -> Collection[str] | None:
        """The names of the parameters of a tool that the deployment has, or had.

        None for any other tool. Such a name is a model's invention, and so is that of any other parameter.
        """
        if (tool := self._tools.get(name)) is not None:
            return tool.parameters.model_fields
        remote = self._remote.tools().get(name)
        return self._offered.get(name) if remote is None else _parameters(remote.schema)

    def policy(self, name: str) -> Policy:
        """The policy of a tool. An unknown name counts as allowed: run() tells the model that there is no such tool."""
        return self._remote.policy(name) if name in self._remote.tools() else self._policies.get(name, "allow")

    def stopped_by(self, stops: StoppableTurn, call: ToolCall) -> Ruling | None:
        """What is decided on a call whose tool is stopped, before any rule is asked; None if it is not."""
        stop = stops.stop_of(call.name)
        return None if stop is None else Ruling("deny", decision(stop), told(stop), why_denied(stop))

    def rule_on(self, call: ToolCall, scope: Scope, labels: Mapping[str, str]) -> Ruling:
        """What is decided on a call of a session with these labels before it runs."""
        policy = self.policy(call.name)
        by_policy = UNCONFINED if policy == "allow" and call.name in self._unconfined else BY_POLICY[policy]
        if self._rules is None or not (call.name in self._tools or call.name in self._remote.tools()):
            return by_policy
        return rule_on_arguments(self._rules, call, scope, labels, by_policy)

    def is_unconfined(self, name: str) -> bool:
        """Whether a tool runs programs that nothing confines."""
        return name in self._unconfined

    def mcp_server(self, name: str) -> tuple[str, str]:
        """The name and the version of the MCP server that has a tool; empty for other tools."""
        return self._remote.software(name) if name in self._remote.tools() else ("", "")

    def check(self, call: ToolCall) -> ToolResult | None:
        """The result of a call that cannot run: an unknown or denied tool, unusable arguments; None when it can run.

        run() does the same check. This is for checking a call before a client is asked.
        """
        prepared = self._prepare(call)
        return prepared if isinstance(prepared, ToolResult) else None

    async def run(self, call: ToolCall, context: ToolContext) -> ToolResult:
        """Runs a call. The result reports any failure; only cancellation propagates, once the tool is done.

        A tool whose policy is `ask` runs: the caller has asked.
        """
        started_at_ms, started = time.time_ns() // 1_000_000, time.monotonic()
        prepared = self._prepare(call)
        result = prepared if isinstance(prepared, ToolResult) else await self._run(prepared, context)
        duration_ms = round((time.monotonic() - started) * 1000)
        return replace(self._bounded(result), started_at_ms=started_at_ms, duration_ms=duration_ms)

    def _prepare(self, call: ToolCall) -> _Prepared | ToolResult:
        tool, remote = self._tools.get(call.name), self._remote.tools().get(call.name)
        if remote is not None:
            return self._prepare_remote(remote, call)
        if tool is None:
            offered = [definition.name for definition in self.definitions()]
            return _invalid(
                f"there is no such tool among the {len(offered)} that are offered",
                told=f"there is no such tool; the tools are {', '.join(offered)}",
            )
        if self.policy(tool.name) == "deny":
            return denied("this deployment does not allow the tool")
        try:
            return _Prepared(tool, parse_arguments(call.arguments, tool.parameters))
        except ArgumentsError as error:
            return _invalid(str(error), told=error.told)

    def _prepare_remote(self, tool: RemoteTool, call: ToolCall) -> _Prepared | ToolResult:
        if self.policy(tool.name) == "deny":
            return denied("this deployment does not allow the tool")
        try:
            arguments = parse_object(call.arguments)
            tool.check(arguments)
        except ArgumentsError as error:
            return _invalid(str(error), told=error.told)
        return _Prepared(tool, arguments)

    async def _run(self, prepared: _Prepared, context: ToolContext) -> ToolResult:
        deadline = asyncio.timeout(self._timeout_seconds)
        try:
            async with deadline:
                return await prepared.tool.run(prepared.arguments, context)
        except ToolError as error:
            return error.result
        except Exception as failure:  # noqa: BLE001 - a tool's defect is told to the model and never ends the turn
            if deadline.expired():
                return ToolError(
                    f"the call ran longer than {self._timeout_seconds:g} s and was ended",
                    outcome=common_pb2.OUTCOME_TIMED_OUT,
                ).result
            # The exception's text may quote content, so the log names only its type and where it was raised.
            place = traceback.extract_tb(failure.__traceback__)[-1]
            kind = type(failure).__name__
            log.warning(
                "tool.failed",
                tool=prepared.tool.name,
                error_type=kind,
                at=f"{Path(place.filename).name}:{place.lineno}",
            )
            return ToolError(f"the tool failed unexpectedly ({kind})").result

    def _bounded(self, result: ToolResult) -> ToolResult:
        text, cut = shorten(result.text, self._max_characters, self._max_lines)
        if cut:
            result_bytes = result.result_bytes or len(result.text.encode(errors="replace"))
            result = replace(result, result_truncated=True, result_bytes=result_bytes)
        # A file's name may have bytes that are not UTF-8, which no message to a model can carry.
        return replace(result, text=text.encode(errors="replace").decode())


def _parameters(schema: Mapping[str, Any]) -> frozenset[str]:
    named = schema.get("properties")
    return frozenset(named) if isinstance(named, dict) else frozenset()


def denied(reason: str, *, told: str = "") -> ToolResult:
    """The result of a call that a rule or a person refused. The model reads `told` in the place of the reason, if any;
    the record has the reason, so it must be a sentence of our own.
    """
    text = f"Error: {told or reason}"
    return ToolError(reason, outcome=common_pb2.OUTCOME_DENIED, text=text).result


def _invalid(reason: str, *, told: str = "") -> ToolResult:
    outcome = common_pb2.OUTCOME_INVALID_CALL
    return ToolError(reason, outcome=outcome, text=f"Error: {told or reason}").result
