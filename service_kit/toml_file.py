"""Files in TOML that operators write: read whole, or refused with a sentence."""

import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from recording.channel.watched import WrongFile


def parse_toml(path: Path, content: bytes) -> dict[str, Any]:
    """The document in the contents of the file at path.

    Raises:
        WrongFile: it is no TOML.
    """
    try:
        return tomllib.loads(content.decode())
    except tomllib.TOMLDecodeError as error:
        raise WrongFile(path, f"is not TOML ({error})") from None
    except UnicodeDecodeError:
        raise WrongFile(path, "is not TOML (not in UTF-8)") from None
    except (ValueError, RecursionError):  # as of a number of 5,000 digits
        raise WrongFile(
            path, "is not TOML that can be read: a number has too many digits, or tables lie too deep"
        ) from None


def first_problem(error: ValidationError) -> str:
    """What is wrong first with a table, and with which key. It quotes no value."""
    problem = error.errors(include_input=False, include_url=False, include_context=False)[0]
    where = ".".join(map(str, problem["loc"]))
    told = {"extra_forbidden": "there is no such key", "missing": "is missing"}
    reason = told.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
    return f"{where}{': ' if where else ''}{reason}"


def line_of_table(content: bytes, name: str, number: int, total: int) -> int | None:
    """The line on which the table [[name]] with that number, from 1, begins; None where it cannot be told.

    It is not told of tables that are written in another form, nor where text within a value looks like one.
    """
    header = re.compile(rf"\s*\[\[\s*{re.escape(name)}\s*\]\]")
    lines = [at for at, line in enumerate(content.decode(errors="replace").split("\n"), 1) if header.match(line)]
    return lines[number - 1] if len(lines) == total else None
