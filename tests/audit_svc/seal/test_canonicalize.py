"""Leaves are in the form of RFC 8785 as npm's `canonicalize` writes it, which is by an author of the RFC."""

import json
import random
import shutil
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from audit_svc.seal import leaf
from audit_svc.sqlite.open.connection import open_for_reading
from audit_svc.sqlite.seal import leaves
from tests.audit_svc.seal.conftest import Seal, rows

PACKAGE = "canonicalize@5.1.0"
PROGRAM = """
import canonicalize from "canonicalize";
import { createInterface } from "node:readline";
for await (const line of createInterface({ input: process.stdin })) console.log(canonicalize(JSON.parse(line)));
"""

pytestmark = [pytest.mark.npm, pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")]


@pytest.fixture
def canonicalize(tmp_path: Path) -> Callable[[list[str]], list[bytes]]:
    """Writes JSON texts, each without a line break, again."""
    (tmp_path / "again.mjs").write_text(PROGRAM)
    install: list[str | Path] = ["npm", "install", "--silent", "--no-save", "--no-audit", "--prefix", tmp_path, PACKAGE]
    if subprocess.run(install, capture_output=True, check=False).returncode:
        pytest.skip("npm's registry cannot be reached")

    def run(texts: list[str]) -> list[bytes]:
        given = "".join(f"{text}\n" for text in texts).encode()
        command: list[str | Path] = ["node", tmp_path / "again.mjs"]
        return subprocess.run(command, input=given, capture_output=True, check=True, timeout=120).stdout.splitlines()

    return run


def test_the_leaves_of_a_ledger_are_written_alike(
    canonicalize: Callable[[list[str]], list[bytes]], seal: Seal, record: Callable[..., None]
):
    record(**rows(40), last=3)
    with closing(open_for_reading(seal.database)) as ledger:
        leaves.prepare(ledger)
        found = [said for kind in leaf.KINDS for _, said in ledger.execute(leaves.select(kind, "true"))]
    encoded = [str(said).encode() for said in found]
    assert len(encoded) >= 60
    assert canonicalize([turned(said) for said in encoded]) == encoded


def test_texts_of_any_characters_are_written_alike(canonicalize: Callable[[list[str]], list[bytes]]):
    chance = random.Random(8785)
    said = [{name: text(chance) for name in chance.sample("abcdefgh", 4)} for _ in range(3000)]
    assert canonicalize([json.dumps(each) for each in said]) == [leaf.canonical(each) for each in said]


def text(chance: random.Random) -> str | None:
    """Of few characters, from controls to the highest planes."""
    last = chance.choice([0x1F, 0x7F, 0x9F, 0x2029, 0xD7FF, 0x10FFFF])
    points = [chance.randrange(last + 1) for _ in range(chance.randrange(12))]
    return None if chance.random() < 0.1 else "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)


def turned(said: bytes) -> str:
    """The same object in another order, with blanks, in ASCII."""
    members: dict[str, Any] = json.loads(said)
    return json.dumps(dict(reversed(members.items())), indent=None, separators=(" , ", " : "))
