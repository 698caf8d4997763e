"""Texts beside a proof: who gets them sees that they are those that were sealed."""

import json
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from audit_svc.__main__ import program
from audit_svc.seal import leaf
from audit_svc.seal.folder import VERIFIER
from audit_svc.seal.texts import check_texts, texts_of
from recording.transparency.errors import BadNote
from recording.transparency.proof import Proof
from tests.audit_svc.samples import audit_row, cost_row, session_row
from tests.audit_svc.seal.conftest import Seal
from tests.support.command_line import Result, invoke

TEXTS = {"args_summary": '{"command": "ls é"}', "error": "gone", "reason": "agreed"}
ROW = audit_row(id="call", args_summary=TEXTS["args_summary"], error="gone", decision={"source": 1, "reason": "agreed"})


@pytest.fixture
def sealed(seal: Seal, record: Callable[..., None]) -> Seal:
    record(tool_calls=[ROW])
    seal.run()
    return seal


def run(*words: object) -> Result:
    return invoke(program, list(map(str, words)))


def test_the_commands_write_and_check_a_proof_and_its_texts(sealed: Seal, tmp_path: Path):
    where = ("--db", sealed.database, "--seal", sealed.folder)
    texts, proof = tmp_path / "texts.json", tmp_path / "call.tlog-proof"
    proof.write_text(run("proof", "call", *where, "--texts", texts).stdout, "utf-8")
    assert json.loads(texts.read_bytes())["texts"] == TEXTS
    assert texts.stat().st_mode & 0o777 == 0o600
    assert TEXTS["error"] not in proof.read_text("utf-8")
    check = ("verify", "--proof", proof, "--texts", texts, "--key", sealed.folder / VERIFIER)
    assert "texts that were sealed so: args_summary, error, reason" in run(*check).stdout
    texts.write_text(texts.read_text("utf-8").replace("gone", "fine"), "utf-8")
    refused = run(*check)
    assert (refused.exit_code, "the text 'error' is not the one that was sealed" in refused.stderr) == (1, True)
    assert run("verify", "--texts", texts).exit_code == 2


def test_a_file_of_texts_is_replaced_only_with_force(sealed: Seal, tmp_path: Path):
    texts = tmp_path / "texts.json"
    texts.write_text("kept", "utf-8")
    words = ("proof", "call", "--db", sealed.database, "--seal", sealed.folder, "--texts", texts)
    refused = run(*words)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == f"{texts} is there already: choose another name, or replace it with --force\n"
    assert texts.read_text("utf-8") == "kept"
    assert run(*words, "--force").exit_code == 0
    assert json.loads(texts.read_bytes())["texts"] == TEXTS


def test_of_a_row_whose_texts_were_erased_it_is_said_when_and_by_which_entry(sealed: Seal, tmp_path: Path):
    assert run("erase", "call", "--reason", "asked to", "--db", sealed.database).exit_code == 0
    texts = tmp_path / "texts.json"
    told = run("proof", "call", "--db", sealed.database, "--seal", sealed.folder, "--texts", texts)
    assert told.exit_code == 0, told.stderr
    assert re.search(r"its texts were erased at 20\d\d-\S+Z.*: entry 1 of the erasures", " ".join(told.stderr.split()))
    read = json.loads(texts.read_bytes())
    assert (read["salt"], read["texts"], read["erased"]["entry"]) == ("", {}, 1)
    proof = tmp_path / "call.tlog-proof"
    proof.write_text(told.stdout, "utf-8")
    check = ("verify", "--proof", proof, "--texts", texts, "--key", sealed.folder / VERIFIER)
    assert "texts that were sealed so: none" in run(*check).stdout


def test_a_proof_of_nothing_says_what_was_looked_through(sealed: Seal):
    refused = run("proof", "nope", "--db", sealed.database, "--seal", sealed.folder)
    assert refused.exit_code == 1
    assert "has no tool call, model request, session or act of control with this id" in refused.stderr
    refused = run("proof", "all", "--db", sealed.database, "--seal", sealed.folder)
    assert (refused.exit_code, refused.stderr.count("needs at least 4 characters")) == (1, 1)


def test_a_row_is_named_by_a_part_of_its_id_or_as_the_newest_session(seal: Seal, record: Callable[..., None]):
    newer = session_row(id="01900000-0000-7000-8000-00000000cafe")
    older = session_row(id="01900000-0000-7000-8000-0000000babe0", created_at_ms=newer.created_at_ms - 1000)
    rows: dict[str, list[Any]] = {
        "tool_calls": [audit_row()],
        "model_requests": [cost_row()],
        "sessions": [newer, older],
    }
    record(**rows)
    seal.run()
    typed = {row.id[-10:]: row.id for each in rows.values() for row in each} | {"@last": newer.id}
    for text, meant in typed.items():
        found = run("proof", text, "--db", seal.database, "--seal", seal.folder, "--json")
        assert (found.exit_code, found.stderr) == (0, "")
        told = json.loads(found.stdout)
        assert (told["id"], json.loads(Proof.parse(told["proof"]).leaf)["id"]) == (meant, meant)
    several = run("proof", "01900000", "--db", seal.database, "--seal", seal.folder)
    assert (several.exit_code, "'01900000' fits 2" in several.stderr) == (2, True)


def test_of_an_empty_file_it_is_said_that_it_is_empty(sealed: Seal, tmp_path: Path):
    """A shell's > leaves one where `proof` fails."""
    (tmp_path / "call.tlog-proof").touch()
    said = run("verify", "--proof", tmp_path / "call.tlog-proof", "--key", sealed.folder / VERIFIER)
    assert (said.exit_code, said.stdout) == (2, "")
    assert "call.tlog-proof is empty: the `audit-svc proof`" in " ".join(said.stderr.split())


@pytest.mark.parametrize("said", [b"", b"[]", b'{"salt": "x", "texts": {}}', b'{"salt": "", "texts": {"error": 1}}'])
def test_what_is_no_texts_is_refused(said: bytes):
    with pytest.raises(BadNote):
        check_texts(b"{}", said)


@pytest.mark.parametrize("change", [{"salt": "00"}, {"texts": {"id": "call"}}, {"texts": {"other": "x"}}])
def test_another_salt_or_a_text_that_the_leaf_does_not_hash_is_refused(sealed: Seal, change: dict[str, object]):
    kind = leaf.BY_NAME["tool_call"]
    with closing(sealed.place.open_ledger()) as ledger:
        said = ledger.leaf_at(kind, 1)
        texts = texts_of(ledger, kind, 1)
    assert said
    assert check_texts(said, json.dumps(texts).encode()) == sorted(TEXTS)
    with pytest.raises(BadNote):
        check_texts(said, json.dumps(texts | change).encode())
