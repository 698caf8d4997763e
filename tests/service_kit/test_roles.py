"""The file of callers: what it lets in, and how it says what is wrong with it."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recording.channel.watched import WrongFile
from service_kit.access.roles import Callers, Role, load_callers, make_token
from tests.support.forked import run_command

HASH = "0" * 64
EXPIRED = "expires = 2020-01-31T00:00:00Z"
PIECES = (
    *(
        "[[callers]]\n",
        'name = "a"\n',
        'roles = ["admin"]\n',
        f'sha256 = "{HASH}"\n',
        'certificate = "a"\n',
        f"{EXPIRED}\n",
    ),
    *(
        "expires = 1e400\n",
        "expires = 99999999999999999999\n",
        "expires = true\n",
        "roles = [[1]]\n",
        "name = 1\n",
        '"',
    ),
)


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
        ("[[callers]", "is not TOML"),
        ("tokens = 1", r"may hold \[\[callers\]\] tables and nothing else"),
        (f'[[callers]]\nroles = ["reader"]\nsha256 = "{HASH}"', "caller 1: name"),
        (f'[[callers]]\nname = "a/b"\nroles = ["reader"]\nsha256 = "{HASH}"', "caller 1: name"),
        (f'[[callers]]\nname = "a"\nroles = []\nsha256 = "{HASH}"', "caller 1: roles"),
        (f'[[callers]]\nname = "a"\nroles = ["king"]\nsha256 = "{HASH}"', "caller 1: roles"),
        ('[[callers]]\nname = "a"\nroles = ["reader"]\nsha256 = "hunter2"', "caller 1: sha256"),
        (f'[[callers]]\nname = "a"\nroles = ["reader"]\nsha256 = "{HASH}"\ncertificate = "a"', "caller 1: give either"),
        (f'[[callers]]\nname = "a"\nroles = ["reader"]\nsha256 = "{HASH}"\n{EXPIRED}', "caller 1: put expires ahead"),
        (f'[[callers]]\nname = "a"\nroles = ["reader"]\ncertificate = "a"\n{EXPIRED}', "caller 1: put expires ahead"),
        (f"expires = {'9' * 5_000}", "is not TOML that can be read"),
        ("a = " + "[" * 100_000, "is not TOML"),
        ("callers = [1]", "caller 1: "),
        (f'[[callers]]\nname = "a"\nroles = ["reader"]\nsha256 = "{HASH}"\nrole = "x"', "caller 1: role"),
        (f'[[callers]]\nname = "a"\nroles = ["reader"]\nexpires = 2027-01-01\nsha256 = "{HASH}"', "caller 1: expires"),
    ],
)
def test_a_wrong_file_says_which_caller_and_what(text, told):
    with pytest.raises(WrongFile, match=rf"^callers.toml: {told}") as refused:
        load(text)
    assert "hunter2" not in str(refused.value)


def test_an_entry_without_a_proof_counts_for_nothing_and_the_others_count():
    token, table = make_token("ada", [Role.READER])
    callers = load(f'[[callers]]\nname = "ops"\nroles = ["admin"]\n{EXPIRED}\n\n{table}\n[[callers]]\n')
    assert [entry.name for entry in callers.entries] == ["ada"]
    assert callers.by_token(token) is not None
    assert callers.by_certificate([""]) is callers.by_token("") is None


def test_a_list_that_is_cut_anywhere_lets_nobody_in_whom_the_whole_one_would_not():
    past = datetime.now(UTC) - timedelta(days=1)
    token, table = make_token("ops", [Role.ADMIN], past)
    certificate = f'[[callers]]\nname = "by-name"\nroles = ["admin"]\n{EXPIRED}\ncertificate = "ops"\n'
    whole = f"{table}\n{certificate}"
    assert load(whole).by_token(token) is None
    for end in range(len(whole)):
        with suppress(WrongFile):
            cut = load(whole[:end])
            assert cut.by_token(token) is None
            assert cut.by_certificate(["ops", "op", "o"]) is None


@given(
    st.one_of(
        st.binary(max_size=300),
        st.lists(st.sampled_from(PIECES), max_size=12).map(lambda pieces: "".join(pieces).encode()),
    )
)
def test_whatever_the_file_holds_it_is_a_list_or_a_clear_error(content: bytes):
    with suppress(WrongFile):
        load_callers(Path("callers.toml"), [content])


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
