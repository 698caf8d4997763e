"""The agents: what the scripted model asks of each, how each is started, and what the rows have to say of it."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo import claude_code
from demo.script import Call
from tests.agents.install import FOLDER

CANARY = "canary-4d21f7"
PROGRAMS = Path(__file__).resolve().parent / "programs"
REPOSITORY = PROGRAMS.parents[2]

OK, FAILED, DENIED = "succeeded", "failed", "denied"
UNTOLD = "denied, of which the agent sends nothing"
NO_END = "interrupted"
"""A call that was refused, and of which the agent tells as of one that ended and returned nothing."""


@dataclass(frozen=True)
class Place:
    """Where an agent runs."""

    home: Path
    work: Path
    """Its folder: has notes.txt, whose text is the canary."""
    model: str
    """The model server, http://…"""
    grpc: str
    http: str
    """The door, host:port."""


@dataclass(frozen=True)
class Launch:
    """How it is started."""

    command: list[str]
    env: Mapping[str, str]


@dataclass(frozen=True)
class Asked:
    """One call that the model asks for, and how it ends by the agent's own account."""

    name: str
    arguments: dict[str, Any]
    outcome: str
    exit_code: int | None = None

    def call(self, number: int) -> Call:
        return Call(name=self.name, arguments=self.arguments, id=f"call_{number}")


@dataclass(frozen=True)
class Agent:
    """An agent."""

    name: str
    """As in versions.toml."""
    engine: str
    """Its dialect."""
    launch: Callable[[Place], Launch]
    asked: Callable[[Path], tuple[Asked, ...]]
    empty: frozenset[str] = frozenset()
    """The fields of FIELDS that its rows lack, as docs/agents/README.md says."""
    ids: bool = True
    """Whether its rows have the ids that the model gave."""


FIELDS = ("session_id", "turn_id", "provider_call_id", "args_summary", "result_bytes", "trace_id", "agent_version")
"""What a row of a call that succeeded may lack."""


def bin_of(agent: str, program: str) -> Path:
    return FOLDER / agent / "node_modules" / ".bin" / program


def claude(place: Place) -> Launch:
    command = claude_code.command(f"{CANARY} prompt", "Bash(cat:*)")
    return Launch(command, claude_code.environment(place.home, place.model, place.grpc, place.http))


def claude_asked(work: Path) -> tuple[Asked, ...]:
    return (
        Asked("Bash", {"command": "cat notes.txt", "description": f"{CANARY} argument"}, OK),
        Asked("Bash", {"command": "cat missing.txt", "description": f"{CANARY} argument"}, FAILED, 1),
        Asked("Write", {"file_path": str(work / "new.txt"), "content": f"{CANARY} argument"}, DENIED),
    )


CODEX = """
model = "m"
model_provider = "scripted"
approval_policy = "never"
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false
[model_providers.scripted]
name = "scripted"
base_url = "{model}/v1"
wire_api = "responses"
env_key = "SCRIPTED_KEY"
[otel]
exporter = {{ otlp-grpc = {{ endpoint = "http://{grpc}" }} }}
[analytics]
enabled = false
"""


def codex(place: Place) -> Launch:
    folder = place.home / ".codex"
    folder.mkdir()
    (folder / "config.toml").write_text(CODEX.format(model=place.model, grpc=place.grpc), "utf-8")
    command = [str(bin_of("codex", "codex")), "exec", "--skip-git-repo-check", f"{CANARY} prompt"]
    return Launch(command, {"SCRIPTED_KEY": "nobody", "CODEX_HOME": str(folder)})


def codex_asked(work: Path) -> tuple[Asked, ...]:
    beyond = {"sandbox_permissions": "require_escalated", "justification": f"{CANARY} argument"}
    return (
        Asked("exec_command", {"cmd": "cat notes.txt"}, OK),
        Asked("exec_command", {"cmd": "cat missing.txt"}, OK),
        Asked("exec_command", {"cmd": "touch new.txt", **beyond}, FAILED),
    )


def gemini(place: Place) -> Launch:
    folder = place.home / ".gemini"
    (folder / "policies").mkdir(parents=True)
    rule = '[[rule]]\ntoolName = "run_shell_command"\ncommandPrefix = "touch"\ndecision = "deny"\npriority = 900\n'
    (folder / "policies" / "rules.toml").write_text(rule, "utf-8")
    settings = {
        "telemetry": {"enabled": True, "target": "local", "otlpEndpoint": f"http://{place.grpc}", "logPrompts": False},
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "general": {"disableAutoUpdate": True},
        "privacy": {"usageStatisticsEnabled": False},
    }
    (folder / "settings.json").write_text(json.dumps(settings), "utf-8")
    command = [str(bin_of("gemini-cli", "gemini")), "--approval-mode", "yolo", "-m", "gemini-2.5-flash"]
    env = {"GEMINI_API_KEY": "nobody", "GOOGLE_GEMINI_BASE_URL": place.model, "GEMINI_CLI_TRUST_WORKSPACE": "true"}
    return Launch([*command, "-p", f"{CANARY} prompt"], {**env, "GEMINI_CLI_NO_RELAUNCH": "true"})


def gemini_asked(work: Path) -> tuple[Asked, ...]:
    return (
        Asked("read_file", {"file_path": "notes.txt"}, OK),
        Asked("read_file", {"file_path": "missing.txt"}, FAILED),
        Asked("run_shell_command", {"command": "touch new.txt", "description": f"{CANARY} argument"}, DENIED),
    )


def opencode(place: Place) -> Launch:
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "scripted",
        "options": {"baseURL": f"{place.model}/v1", "apiKey": "nobody"},
        "models": {"m": {"name": "m"}},
    }
    settings = {
        "autoupdate": False,
        "share": "disabled",
        "experimental": {"openTelemetry": True},
        "model": "scripted/m",
        "small_model": "scripted/m",
        "permission": {"bash": {"*": "allow", "touch *": "deny"}},
        "provider": {"scripted": provider},
    }
    (place.work / "opencode.json").write_text(json.dumps(settings), "utf-8")
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{place.http}", "OPENCODE_DISABLE_MODELS_FETCH": "1"}
    return Launch([str(bin_of("opencode", "opencode")), "run", f"{CANARY} prompt"], env)


def opencode_asked(work: Path) -> tuple[Asked, ...]:
    return (
        Asked("bash", {"command": "cat notes.txt", "description": f"{CANARY} argument"}, OK),
        Asked("read", {"filePath": str(work / "missing.txt")}, FAILED),
        Asked("bash", {"command": "touch new.txt", "description": f"{CANARY} argument"}, FAILED),
    )


def copilot(place: Place) -> Launch:
    rules = ["--allow-all-tools", "--deny-tool", "shell(touch)", "--no-auto-update"]
    env = {
        "COPILOT_OTEL_ENABLED": "true",
        "COPILOT_OFFLINE": "true",
        "COPILOT_MODEL": "m",
        "COPILOT_PROVIDER_TYPE": "openai",
        "COPILOT_PROVIDER_API_KEY": "nobody",
        "COPILOT_PROVIDER_BASE_URL": f"{place.model}/v1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{place.http}",
    }
    return Launch([str(bin_of("copilot", "copilot")), "-p", f"{CANARY} prompt", *rules], env)


def copilot_asked(work: Path) -> tuple[Asked, ...]:
    said = {"description": f"{CANARY} argument"}
    return (
        Asked("bash", {"command": "cat notes.txt", **said}, OK, 0),
        Asked("bash", {"command": "cat missing.txt; exit 3", **said}, OK, 3),
        Asked("bash", {"command": "touch new.txt", **said}, DENIED),
    )


def program(agent: str) -> Callable[[Place], Launch]:
    """A program of this folder, run by the Python of a framework."""

    def launch(place: Place) -> Launch:
        script = PROGRAMS / f"{agent.replace('-', '_')}_agent.py"
        env = {
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONDONTWRITEBYTECODE": "1",
            "MODEL_URL": f"{place.model}/v1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{place.http}",
            "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental",
        }
        return Launch(
            [str(FOLDER / agent / "bin" / "python"), str(script), f"{CANARY} prompt", f"{CANARY} result"], env
        )

    return launch


def tools(*more: Asked) -> Callable[[Path], tuple[Asked, ...]]:
    """The calls of a program of this folder."""
    topic = {"topic": f"{CANARY} argument"}
    return lambda _: (Asked("lookup", topic, OK), Asked("broken", topic, FAILED), *more)


def refused(outcome: str) -> Asked:
    return Asked("forbidden", {"topic": f"{CANARY} argument"}, outcome)


AGENTS = {
    agent.name: agent
    for agent in (
        Agent("claude-code", "claude", claude, claude_asked, frozenset({"trace_id"})),
        Agent("codex", "codex", codex, codex_asked, frozenset({"turn_id", "result_bytes", "trace_id"})),
        Agent(
            "gemini-cli",
            "gemini",
            gemini,
            gemini_asked,
            frozenset({"provider_call_id", "args_summary", "agent_version"}),
            ids=False,
        ),
        Agent("opencode", "opencode", opencode, opencode_asked, frozenset({"turn_id", "result_bytes"})),
        Agent("copilot", "copilot", copilot, copilot_asked, frozenset({"args_summary", "result_bytes"})),
        Agent(
            "pydantic-ai",
            "genai",
            program("pydantic-ai"),
            tools(),
            frozenset({"args_summary", "result_bytes", "agent_version"}),
        ),
        Agent(
            "openai-agents",
            "openinference",
            program("openai-agents"),
            tools(refused(NO_END)),
            frozenset({"provider_call_id", "turn_id", "result_bytes", "agent_version"}),
            ids=False,
        ),
        Agent(
            "langgraph",
            "openinference",
            program("langgraph"),
            tools(),
            frozenset({"provider_call_id", "turn_id", "result_bytes", "agent_version"}),
            ids=False,
        ),
        Agent(
            "strands",
            "genai",
            program("strands"),
            tools(refused(UNTOLD)),
            frozenset({"result_bytes", "agent_version"}),
        ),
    )
}


def environment(place: Place, launch: Launch) -> dict[str, str]:
    """An environment with a home of its own, so that nobody's login and settings are used."""
    certificates = {name: os.environ[name] for name in ("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE") if name in os.environ}
    return {"PATH": os.environ["PATH"], "HOME": str(place.home), **certificates, **launch.env}
