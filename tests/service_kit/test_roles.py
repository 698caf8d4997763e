"""The file of callers: what it lets in, and how it says what is wrong with it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from demo.processes import run_command
from recording.channel.watched import WrongFile
from service_kit.access.roles import Callers, Role, load_callers, make_token

HASH = "0" * 64


def load(text: str) -> Callers:
    return load_callers(Path("callers.toml"), [text.encode()])


def test_a_made_token_is_let_in_by_its_table_alone_and_the_table_does_not_hold_it():
    token, table = make_token("ada", [Role.READER, Role.ADMIN])
    other, other_table = make_token("bob", [Role.READER])
    callers = load(f"{table}\n\n{other_table}\n")
    found = callers.by_token(token)
    assert found is not None
    assert (found.name, set(found.roles)) == ("ada", {Role.READER, Role.ADMIN})
    assert token not in table
    assert other != token
    for wrong in ("", token[:-1], token + "x", HASH):
        assert callers.by_token(wrong) is None


def test_a_token_is_let_in_until_it_expires():
    now = datetime.now(UTC)
    for expires, let_in in ((now + timedelta(hours=1), True), (now - timedelta(seconds=2), False)):
        token, table = make_token("ada", [Role.READER], expires)
        assert (load(table).by_token(token) is not None) == let_in


def test_a_name_may_have_two_tokens_while_they_are_replaced():
    (old, old_table), (new, new_table) = make_token("ada", [Role.READER]), make_token("ada", [Role.READER])
    callers = load(f"{old_table}\n{new_table}")
    assert callers.by_token(old)
    assert callers.by_token(new)


def test_a_certificate_is_let_in_by_a_name_in_it():
    callers = load('[[callers]]\nname = "ops"\nroles = ["admin"]\ncertificate = "spiffe://a/ops"')
    found = callers.by_certificate(["other", "spiffe://a/ops"])
    assert found is not None
    assert found.name == "ops"
    assert callers.by_certificate(["spiffe://a/ops/x"]) is None
    assert callers.by_token("") is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[callers]", "is no TOML"),
        ("tokens = 1", r"may hold \[\[callers\]\] tables and nothing else"),
        ('[[callers]]\nroles = ["reader"]', "caller 1: name"),
        (f'[[callers]]\nname = "a/b"\nroles = ["reader"]\nsha256 = "{HASH}"', "caller 1: name"),
        (f'[[callers]]\nname = "a"\nroles = []\nsha256 = "{HASH}"', "caller 1: roles"),
        (f'[[callers]]\nname = "a"\nroles = ["king"]\nsha256 = "{HASH}"', "caller 1: roles"),
        ('[[callers]]\nname = "a"\nroles = ["reader"]\nsha256 = "hunter2"', "caller 1: sha256"),
        ('[[callers]]\nname = "a"\nroles = ["reader"]', "caller 1: give either sha256"),
        (f'[[callers]]\nname = "a"\nroles = ["reader"]\nsha256 = "{HASH}"\nrole = "x"', "caller 1: role"),
        (f'[[callers]]\nname = "a"\nroles = ["reader"]\nsha256 = "{HASH}"\nexpires = 2027-01-01', "caller 1: expires"),
    ],
)
def test_a_wrong_file_says_which_caller_and_what(text, told):
    with pytest.raises(WrongFile, match=rf"^callers.toml: {told}") as refused:
        load(text)
    assert "hunter2" not in str(refused.value)


@pytest.mark.long
@pytest.mark.parametrize(("module", "role"), [("audit_svc", "producer"), ("gateway_svc", "caller")])
def test_the_command_prints_a_token_and_the_table_that_lets_it_in(module, role):
    ran = run_command(module, {}, "token", "ada", "--role", role, "--days", "2")
    assert ran.returncode == 0, ran.stderr
    found = load(ran.stderr).by_token(ran.stdout.strip())
    assert found is not None
    assert found.expires is not None
    assert (found.name, set(found.roles)) == ("ada", {Role(role)})
    wrong = run_command(module, {}, "token", "ada", "--role", "caller" if role == "producer" else "producer")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert run_command(module, {}, "token", "a/b", "--role", role).returncode == 2
