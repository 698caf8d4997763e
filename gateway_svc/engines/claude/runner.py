"""Runs turns on Claude's command-line agent: an engine with its own loop and its own tools.

Each turn is a process of its own. The program keeps the conversation and continues it by its id (see memory).
"""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import structlog
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.engines.claude import failures
from gateway_svc.engines.claude.bill import Price
from gateway_svc.engines.claude.command import Options, environment
from gateway_svc.engines.claude.hold import HOLD_TOOLS
from gateway_svc.engines.claude.isolation import check, find_program, isolated, sources
from gateway_svc.engines.claude.memory import Known, Memory
from gateway_svc.engines.claude.process import ClaudeProcess
from gateway_svc.engines.claude.prompt import prompt
from gateway_svc.engines.claude.record import ClaudeAudit
from gateway_svc.engines.claude.run import Run
from gateway_svc.turns.turn import Turn

log = structlog.get_logger(__name__)


class ClaudeRunner:
    """Runs turns by Claude's program (the Runner protocol)."""

    name = failures.ENGINE
    jail = ""
    """The gateway starts no programs for its models; its own tools follow its own settings."""

    def __init__(
        self,
        command: str,
        default_model: str,
        state_dir: Path,
        workspace: Path,
        *,
        price: Price,
        max_steps: int,
        max_turn_seconds: float,
        permission_mode: str = "",
        allowed_tools: Sequence[str] = (),
        audit: ClaudeAudit | None = None,
    ) -> None:
        """Makes the folder `claude` under state_dir.

        Args:
            command: the program and, quoted as in a shell, arguments before ours.
            default_model: empty: the program's own.
            state_dir: the gateway's state directory.
            workspace: the folder that the program works in.
            price: the list price of a request in millionths of a US dollar, or None if unknown.
            max_steps: the most model requests of a turn.
            max_turn_seconds: the longest time of a turn.
            permission_mode: empty: the program's own.
            allowed_tools: tools that need no permission, in the program's notation.
            audit: where rows go; None: this engine is not recorded.

        Raises:
            SettingsError: the program or its settings would lie in the workspace.
        """
        self.default_model = default_model
        self._command = shlex.split(command)
        check(self._command, os.environ, workspace)
        self._memory = Memory(state_dir / failures.ENGINE)
        self._workspace = workspace
        self._price = price
        self._max_steps = max_steps
        self._max_turn_seconds = max_turn_seconds
        self._permission_mode = permission_mode
        self._allowed_tools = tuple(allowed_tools)
        self._audit = audit

    async def run(self, turn: Turn) -> pb.StopReason.ValueType:
        """Runs the program until it has answered, or a limit is reached.

        Raises:
            EngineError, EngineNotConfigured: the program is missing, or failed.
            InvalidRequest: the model's name or the system prompt cannot be an argument.
        """
        try:
            return await self._run(turn, self._memory.read(turn.scope.session_id))
        except failures.SessionLost:
            log.warning("claude.session_lost")
            return await self._run(turn, Known())

    async def aclose(self) -> None:
        """Does nothing: no process lives between turns."""

    async def _run(self, turn: Turn, known: Known) -> pb.StopReason.ValueType:
        options = Options(
            model=turn.scope.model,
            resume=known.claude_session_id,
            system_prompt=turn.system_prompt,
            permission_mode=self._permission_mode,
            allowed_tools=self._allowed_tools,
            max_steps=min(turn.max_steps or self._max_steps, self._max_steps),
            max_cost_micros=min((budget.left_micros for budget in turn.account.budgets), default=None),
        )
        program, *ahead = self._command
        arguments = [*ahead, *options.arguments(), *sources(ahead)]
        env = isolated(environment(os.environ), self._workspace)
        run = Run(turn, self._memory, self._price, self._audit)
        try:
            argv = [find_program(program, env["PATH"], self._workspace), *arguments]
            process = await ClaudeProcess.start(argv, cwd=self._workspace, env=env)
        except OSError as error:
            refusal = failures.not_startable(program, error)
            run.refuse(refusal)
            raise refusal from error
        if self._audit:
            process.send(HOLD_TOOLS)
        process.send(prompt(turn, known.messages))
        return await run.drive(process, resumed=bool(known.claude_session_id), seconds=self._max_turn_seconds)
