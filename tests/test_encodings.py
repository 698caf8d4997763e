"""Code says the encoding of each file and program that it reads or writes as text: a locale says another.

Of the tests and benchmarks it is those whose own texts are not ASCII alone: the others read what they wrote.
"""

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
OURS = ("recording", "service_kit", "gateway_svc", "audit_svc", "intake_svc", "onrecord_cli", "clients/python", "demo")
THEIRS = ("tests", "bench")
ENCODING_AT = {"read_text": 0, "write_text": 1}
"""Where it may stand without its name."""
HANDLERS = ("FileHandler", "RotatingFileHandler", "TextIOWrapper")


def leaves_it_to_the_locale(call: ast.Call) -> bool:
    is_method = isinstance(call.func, ast.Attribute)
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    placed = [ast.unparse(argument) for argument in call.args]
    if "encoding" in given:
        return False
    if name in ENCODING_AT:
        return len(placed) <= ENCODING_AT[name]
    if name == "fdopen" or (name == "open" and not is_method):
        return "b" not in given.get("mode", [*placed, "'r'", "'r'"][1])
    if name == "open":  # of a path, or of something that is not a file
        return given.get("mode", [*placed, ""][0]).strip("'+") in ("r", "w", "a", "x")
    return name in HANDLERS or "True" in (given.get("text"), given.get("universal_newlines"))


@pytest.mark.long
def test_no_file_or_program_is_read_in_an_encoding_that_the_locale_says():
    found = [
        f"{path.relative_to(REPOSITORY)}:{call.lineno}"
        for folder in (*OURS, *THEIRS)
        for path in (REPOSITORY / folder).rglob("*.py")
        if "build" not in path.parts and (folder in OURS or not path.read_bytes().isascii())
        for call in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(call, ast.Call) and leaves_it_to_the_locale(call)
    ]
    assert found == []
