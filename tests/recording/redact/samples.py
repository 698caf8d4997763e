"""Texts with secrets in known places, made from templates, and ordinary texts without any."""

import random
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recording.redact.patterns import TABLES

HERE = Path(__file__).parent
_KINDS = {
    "alpha": string.ascii_letters,
    "base64": string.ascii_letters + string.digits + "+/",
    "digit": string.digits,
    "hex": "0123456789abcdef",
    "low": string.ascii_lowercase + string.digits,
    "sym": string.ascii_letters + string.digits + "!@#%^*+-_=?.,:~",
    "up": string.ascii_uppercase + string.digits,
    "url64": string.ascii_letters + string.digits + "-_",
    "word": string.ascii_letters + string.digits,
}
_BLANK = re.compile(r"\{(\w+) (\d+)\}")
_MARKED = re.compile(r"\[\[(.*?)\]\](?!\])", re.DOTALL)
ARGUMENT = {"bash": "command", "glob": "pattern", "grep": "pattern", "read": "path", "webfetch": "url", "write": "path"}
# How else a token that is told by its shape may stand in a call.
FORMS = (
    ("bash", "deploy --with {} --now"),
    ("bash", "curl -sS localhost:8080/v1/{}/status"),
    ("bash", "VALUE={}; export VALUE"),
    ("bash", "python -c 'run(\"{}\")'"),
    ("webfetch", "https://example.com/a/{}/b"),
    ("error", "cannot use {}: it has expired"),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """A call or an error, and what must not be shown of it."""

    tool: str
    text: str
    secrets: tuple[str, ...] = ()


def fill(template: str, chance: random.Random) -> tuple[str, tuple[str, ...]]:
    """A template's text, and the secrets in it."""
    text = _BLANK.sub(lambda blank: "".join(chance.choices(_KINDS[blank[1]], k=int(blank[2]))), template)
    return _MARKED.sub(r"\1", text), tuple(_MARKED.findall(text))


def lines(name: str) -> Iterator[tuple[str, str]]:
    """Tool and text of each line of a file."""
    for line in (HERE / name).read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            tool, _, text = line.partition(" ")
            yield tool, text.replace("⏎", "\n")


def secrets(seed: int) -> Iterator[Sample]:
    """The suite of secrets in context, with other random characters for each seed."""
    chance = random.Random(seed)
    for tool, template in lines("secrets.txt"):
        yield Sample(tool, *fill(template, chance))
    for table in TABLES:
        for pattern in table.patterns.values():
            text, marked = fill(pattern.example, chance)
            yield Sample("bash", text, marked)
            if text == "".join(marked):
                for tool, form in FORMS:
                    text, marked = fill(pattern.example, chance)
                    yield Sample(tool, form.format(text), marked)


def ordinary() -> list[Sample]:
    """The suite of ordinary calls and errors."""
    return [Sample(tool, text) for tool, text in lines("ordinary.txt")]


def pieces_of(secret: str, shown: str) -> list[str]:
    """Pieces of eight characters of secret that are shown; of a shorter secret, itself."""
    size = min(8, len(secret))
    return [piece for piece in (secret[at : at + size] for at in range(len(secret) - size + 1)) if piece in shown]
