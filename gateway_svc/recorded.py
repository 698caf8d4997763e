"""The part of a gateway that has an audit trail: the agents over HTTP engines, their tools, and the record of both.

It is imported only where such an engine is configured, so that a deployment without one does not load any of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from onrecord.audit.v1 import audit_pb2

from gateway_svc.agent import Agent, Limits
from gateway_svc.answers import Answers
from gateway_svc.audit import redact, safe_audit
from gateway_svc.audit.connection import Target
from gateway_svc.audit.logger import Record, open_record
from gateway_svc.engines import Engine
from gateway_svc.engines.ollama import OllamaEngine
from gateway_svc.engines.openai import OpenAIEngine
from gateway_svc.pricing import cost_micros
from gateway_svc.settings import GatewaySettings
from gateway_svc.tools import Tool
from gateway_svc.tools.bash import BashTool
from gateway_svc.tools.edit import EditTool
from gateway_svc.tools.glob import GlobTool
from gateway_svc.tools.grep import GrepTool
from gateway_svc.tools.read import ReadTool
from gateway_svc.tools.sandbox import find_sandbox
from gateway_svc.tools.toolbox import Toolbox
from gateway_svc.tools.webfetch import WebfetchTool
from gateway_svc.tools.write import WriteTool


@dataclass(frozen=True, slots=True)
class Recorded:
    """The agents of a deployment and the one record that they share."""

    agents: list[Agent]
    record: Record

    def record_session(self, row: audit_pb2.SessionRow) -> None:
        """Puts a session's state on the record."""
        safe_audit(self.record.logger, row)


def open_recorded(settings: GatewaySettings, answers: Answers) -> Recorded:
    """Builds the tools and the record once, and an agent over each HTTP engine that is configured.

    Raises:
        SettingsError: the tools cannot be had as they are set.
        OSError: the state directory or the workspace cannot be used.
    """
    if settings.openai_api_key:
        redact.protect([settings.openai_api_key.get_secret_value()])
    settings.workspace.mkdir(parents=True, exist_ok=True)
    toolbox = Toolbox(_build_tools(settings), policies=settings.tools, timeout_seconds=settings.tool_seconds)
    limits = Limits(settings.max_steps, settings.max_turn_seconds, settings.max_parallel_tools)
    record = open_record(
        settings.state_dir,
        Target(settings.audit_target),
        mode=settings.audit_mode,
        sync=settings.spool_sync,
        sync_interval_ms=settings.spool_sync_interval_ms,
        max_bytes=settings.spool_max_bytes,
    )
    agents = [
        Agent(
            engine,
            toolbox,
            settings.workspace,
            record.logger,
            price=partial(cost_micros, engine.name, base_url, local=local),
            answers=answers,
            limits=limits,
        )
        for engine, base_url, local in _build_engines(settings)
    ]
    return Recorded(agents, record)


def _build_engines(settings: GatewaySettings) -> Iterator[tuple[Engine, str, bool]]:
    """Each configured engine, its URL, and whether its requests cost nothing."""
    if settings.ollama_url and settings.ollama_model:
        engine: Engine = OllamaEngine(settings.ollama_url, settings.ollama_model, num_ctx=settings.ollama_num_ctx)
        yield engine, settings.ollama_url, True
    if settings.openai_url and settings.openai_model:
        key = settings.openai_api_key.get_secret_value() if settings.openai_api_key else None
        engine = OpenAIEngine(settings.openai_url, settings.openai_model, api_key=key)
        yield engine, settings.openai_url, settings.openai_local


def _build_tools(settings: GatewaySettings) -> list[Tool]:
    visible = [Path(path) for path in settings.bash_visible]
    sandbox = find_sandbox(settings.bash_sandbox, visible=visible, hide=[settings.state_dir])
    tools: list[Tool] = [
        ReadTool(),
        WriteTool(),
        EditTool(),
        GlobTool(),
        GrepTool(sandbox),
        BashTool(sandbox, network=settings.bash_network, timeout_seconds=settings.bash_seconds),
        WebfetchTool(allow=settings.webfetch_allow, ports=settings.webfetch_ports),
    ]
    return [tool for tool in tools if tool.name in settings.tools]
