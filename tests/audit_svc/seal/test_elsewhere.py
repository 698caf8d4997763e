"""A seal that is not beside its database, as with a backup: commands ask for its folder, and not for its key."""

from collections.abc import Callable

import pytest

from audit_svc.__main__ import program
from tests.audit_svc.seal.conftest import Seal, rows
from tests.support.command_line import invoke


@pytest.fixture
def sealed(seal: Seal, record: Callable[..., None]) -> Seal:
    """Its folder is not the one that commands look at by default."""
    record(**rows(4))
    seal.run()
    return seal


@pytest.mark.parametrize(
    ("line", "exit_code"),
    [
        ("verify", 2),
        ("verify --key {key}", 2),
        ("proof session-0", 1),
        ("seal status", 1),
        ("seal key rotate --reason x", 1),
        ("seal accept-restore --reason x", 1),
    ],
)
def test_commands_ask_for_the_folder(sealed: Seal, line: str, exit_code: int):
    key = (sealed.folder / "key.pub").read_text().strip()
    ran = invoke(program, [*line.format(key=key).split(), "--db", str(sealed.database)])
    assert ran.exit_code == exit_code
    assert ran.stderr == f"there is no seal at {sealed.database}.seal: name its folder with --seal\n"


def test_an_export_that_takes_no_folder_says_what_it_needs(sealed: Seal):
    ran = invoke(program, ["export", "--format", "sealed", "--db", str(sealed.database)])
    assert ran.exit_code == 1
    assert "such an export needs it beside the database" in ran.stderr


def test_with_the_folder_named_it_is_verified(sealed: Seal):
    ran = invoke(program, ["verify", "--db", str(sealed.database), "--seal", str(sealed.folder)])
    assert ran.exit_code == 0


def test_a_folder_without_its_key_asks_for_the_key(sealed: Seal):
    (sealed.folder / "key.pub").rename(sealed.folder / "kept.pub")
    words = ["verify", "--db", str(sealed.database), "--seal", str(sealed.folder)]
    ran = invoke(program, words)
    assert ran.exit_code == 2
    assert "key.pub is not there: put it back, or verify with the key that you keep (--key)" in ran.stderr
    assert invoke(program, [*words, "--key", str(sealed.folder / "kept.pub")]).exit_code == 0
