"""What works on in the background when the program has given its result.

A subagent's end wakes the program, which then says more. A command that a tool left running, such as a server, may run
for ever: it does not hold a turn.
"""

from gateway_svc.engines.claude.lines import a_word, an_object
from gateway_svc.engines.wire.fields import Fields

COMMANDS = frozenset({"local_bash", "monitor_mcp", "dream"})
"""The kinds of tasks that are waited for by nobody: commands, watchers, the program's own housekeeping."""


class Background:
    """The tasks that the program tells of."""

    def __init__(self) -> None:
        self._tasks: dict[str, str] = {}
        self._commands: set[str] = set()

    def change(self, tasks: object) -> None:
        """The program tells all that there are. What is no list tells nothing."""
        if isinstance(tasks, list):
            told = [an_object(task) for task in tasks]
            self._tasks = {a_word(task.get("task_id")): a_word(task.get("task_type")) for task in told}

    def note(self, line: Fields) -> None:
        """A tool's result may tell the id of a command that it left running; older programs tell its kind nowhere."""
        if task := a_word(an_object(line.get("tool_use_result")).get("backgroundTaskId")):
            self._commands.add(task)

    @property
    def works(self) -> bool:
        """Whether a task runs whose end wakes the program."""
        return any(kind not in COMMANDS and task not in self._commands for task, kind in self._tasks.items())
