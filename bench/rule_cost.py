"""(j) What a file of ten rules with conditions adds to the decision on a call, against the decision by policy alone."""

import json
import time
from pathlib import Path

from bench.figures import Figure, Target, compare_at
from gateway_svc.tools.bash import BashTool
from gateway_svc.tools.toolbox import Toolbox
from recording.calls import Scope, ToolCall
from service_kit.rules.file import Rules

_CONDITIONS = (
    'args.command.contains("git push") && args.command.contains("--force")',
    'args.command.startsWith("rm -rf /")',
    'args.command.contains("curl ") && principal != "ops"',
    "has(args.timeout_seconds) && args.timeout_seconds > 600",
    'has(labels.role) && labels.role == "intern"',
    'args.command.contains("mkfs")',
    'args.command.contains("/etc/shadow") || args.command.contains(".ssh/")',
    'args.command.endsWith("| sh")',
    'engine == "openai" && args.command.contains("internal")',
    "size(args.command) > 5000",
)
"""None holds, so that all are asked. Each `matches` more would add 13 µs: its pattern is compiled at every call."""
_CALLS_A_ROUND = 500
_LABELS = {"team": "web", "environment": "test"}
_TARGET = Target(max_ours=25)


def measure(place: Path, *, short: bool) -> list[Figure]:
    """The figure: both toolboxes by turns, and the difference of each pair of calls."""
    path = place / "rules.toml"
    path.write_text("".join(_table(number, condition) for number, condition in enumerate(_CONDITIONS)), "utf-8")
    plain, ruled = Toolbox([BashTool(None)]), Toolbox([BashTool(None)], rules=Rules(path))
    scope = Scope("session-1", "ollama", "qwen3:4b", "turn-1", principal="ada")
    by_rules: list[float] = []
    by_policy: list[float] = []
    for number in range(_CALLS_A_ROUND * (4 if short else 40)):
        arguments = json.dumps({"command": f"git log --oneline -{number} && make test", "timeout_seconds": 60})
        call = ToolCall(f"row-{number}", f"call-{number}", "bash", arguments)
        for toolbox, samples in ((plain, by_policy), (ruled, by_rules)):
            started = time.perf_counter_ns()
            ruling = toolbox.rule_on(call, scope, _LABELS)
            samples.append((time.perf_counter_ns() - started) / 1000)
            if ruling.policy != "allow":
                raise RuntimeError("a condition holds that must not")
    added = [one - other for one, other in zip(by_rules, by_policy, strict=True)]
    return [
        compare_at("(j) ten rules with conditions, added to a decision by policy", "µs", 50, added, by_policy, _TARGET)
    ]


def _table(number: int, condition: str) -> str:
    return f"[[rules]]\nname = 'rule-{number}'\ntools = ['bash']\nverdict = 'deny'\ncondition = '''{condition}'''\n"
