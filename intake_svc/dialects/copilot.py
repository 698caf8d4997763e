"""Copilot CLI, and Copilot in VS Code: spans by OpenTelemetry's conventions for generative AI.

Those of the CLI have the exit codes of commands.
"""

from collections.abc import Iterable
from dataclasses import replace

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from intake_svc.dialects import conventions, genai
from intake_svc.dialects.base.showing import Agent
from intake_svc.dialects.base.table import Dialect
from intake_svc.dialects.reading import Reading
from recording.show import Show

SPAN_SCOPE = "github.copilot"
VS_CODE_SCOPE = "copilot-chat"

_FILE = {"path": Show.PATH}
_SHELL = {"command": Show.COMMAND, "mode": Show.WORD, "initial_wait": Show.NUMBER}
_SEARCH = {"pattern": Show.TEXT, "path": Show.PATH, "glob": Show.TEXT, "output_mode": Show.WORD}
DIALECT = Dialect(
    engine="copilot",
    agent="github-copilot",
    tools={
        "bash": _SHELL,
        "powershell": _SHELL,
        "view": _FILE,
        "create": _FILE,
        "edit": _FILE,
        "grep": _SEARCH,
        "rg": _SEARCH,
        "glob": _SEARCH,
        "web_fetch": {"url": Show.URL},
    },
    refusals=frozenset({"denied"}),
)
CONVENTION = replace(conventions.CONVENTION, dialect=DIALECT)


def read_spans(spans: Iterable[Span], agent: Agent) -> Reading:
    """The rows of spans."""
    return genai.read(((CONVENTION, span) for span in spans), lambda _: agent)
