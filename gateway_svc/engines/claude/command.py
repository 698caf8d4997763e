"""How Claude's program is started: its options, and which of the gateway's environment variables it gets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway_svc.errors import InvalidRequest

MAX_ARGUMENT_BYTES = 120 * 1024
"""Linux refuses an argument of 128 KiB or more (MAX_ARG_STRLEN)."""
INPUT_OUTPUT = (
    *("-p", "--input-format=stream-json", "--output-format=stream-json"),
    *("--verbose", "--include-partial-messages"),
)
OWN_PREFIXES = ("GATEWAY_", "AUDIT_", "CLAUDE_CODE_")
OWN_NAMES = frozenset({"CLAUDECODE", "OPENAI_API_KEY"})
KEPT_NAMES = frozenset(
    {
        "CLAUDE_CODE_OAUTH_TOKEN",
        "CLAUDE_CODE_USE_BEDROCK",
        "CLAUDE_CODE_USE_VERTEX",
        "CLAUDE_CODE_USE_FOUNDRY",
        "CLAUDE_CODE_SKIP_BEDROCK_AUTH",
        "CLAUDE_CODE_SKIP_VERTEX_AUTH",
        "CLAUDE_CODE_SKIP_FOUNDRY_AUTH",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
    }
)
"""Variables that log the program in or restrict where it connects. The other CLAUDE_CODE_ variables say that a program
runs inside another one."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a deployment or a turn chooses; empty means the program's own default."""

    model: str = ""
    resume: str = ""
    """The program's id of the session to continue."""
    system_prompt: str = ""
    """Added to the program's own."""
    permission_mode: str = ""
    allowed_tools: Sequence[str] = ()
    """Tools that need no permission, as `Read` or `Bash(git log:*)`."""
    max_steps: int = 0
    max_cost_micros: int | None = None
    """The program ends by itself when it has spent more; None: no limit."""

    def arguments(self) -> list[str]:
        """The arguments after the program's name. `=` binds each value to its option, so no value can be an option.

        Raises:
            InvalidRequest: a value cannot be an argument.
        """
        values = {
            "--model": self.model,
            "--resume": self.resume,
            "--append-system-prompt": self.system_prompt,
            "--permission-mode": self.permission_mode,
            "--allowedTools": ",".join(self.allowed_tools),
            "--max-turns": str(self.max_steps) if self.max_steps else "",
            "--max-budget-usd": _dollars(self.max_cost_micros),
        }
        for option, value in values.items():
            if "\0" in value or len(value.encode(errors="replace")) > MAX_ARGUMENT_BYTES:
                raise InvalidRequest(
                    f"engine claude takes no {option.removeprefix('--')} that is longer than {MAX_ARGUMENT_BYTES} bytes"
                    " or holds a NUL"
                )
        return [*INPUT_OUTPUT, *(f"{option}={value}" for option, value in values.items() if value)]


def _dollars(micros: int | None) -> str:
    # the program takes no limit below the smallest amount
    return "" if micros is None else f"{max(1, micros) / 1_000_000:.6f}"


def environment(gateway: Mapping[str, str]) -> dict[str, str]:
    """The gateway's environment without its secrets: the program's tools, and so the model, can read the rest."""
    return {
        name: value
        for name, value in gateway.items()
        if name in KEPT_NAMES or not (name in OWN_NAMES or name.startswith(OWN_PREFIXES))
    }
