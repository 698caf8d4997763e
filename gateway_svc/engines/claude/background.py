"""Tasks that still run in the background when the program has given its result.

When a subagent ends, the program wakes and says more. A command that a tool left running, such as a server, may run for
ever, so no turn waits for it.
"""

from gateway_svc.engines.claude.lines import as_id, as_object
from gateway_svc.engines.wire.fields import Fields
from service_kit.bounds import PROGRAM_CALLS

COMMANDS = frozenset({"local_bash", "monitor_mcp", "dream"})
"""The kinds of tasks that nobody waits for: commands, watchers, the program's own housekeeping."""
ENDED = ("completed", "failed", "killed", "stopped", "cancelled")
"""The states of a task that will not wake the program."""


class Background:
    """The background tasks that the program reports."""

    def __init__(self) -> None:
        self._tasks: dict[str, str] = {}
        self._commands: set[str] = set()

    def change(self, tasks: object) -> None:
        """Takes the full list of tasks. Anything but a list is ignored, and so are tasks that say that they ended."""
        if isinstance(tasks, list):
            told = [task for task in map(as_object, tasks) if task.get("status") not in ENDED]
            self._tasks = {as_id(task.get("task_id")): as_id(task.get("task_type")) for task in told}

    def note(self, line: Fields) -> None:
        """Notes the id of a command that a tool left running; older programs never report its kind."""
        if task := as_id(as_object(line.get("tool_use_result")).get("backgroundTaskId")):
            self._commands.add(task)
            PROGRAM_CALLS.check(len(self._commands))

    @property
    def works(self) -> bool:
        """Whether a task is running that will wake the program when it ends."""
        return any(kind not in COMMANDS and task not in self._commands for task, kind in self._tasks.items())
