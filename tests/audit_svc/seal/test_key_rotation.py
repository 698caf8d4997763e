"""A new key beside the old one: both verify what is signed meanwhile, and the log says when each began and ended."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit_svc.__main__ import program
from audit_svc.seal.folder import CHECKPOINT, KEY, beside, read_key, read_keys, write_key
from audit_svc.seal.sealer import Sealer
from recording.transparency.errors import BadKey
from recording.transparency.note import Signer, split_note
from tests.audit_svc.samples import audit_row
from tests.audit_svc.seal.conftest import Seal, rows
from tests.support.command_line import invoke

Record = Callable[..., None]


@pytest.fixture
def sealed(seal: Seal, record: Record) -> Seal:
    record(**rows(8))
    seal.run()
    return seal


def key_of(seal: Seal) -> str:
    return str(read_key(seal.folder / KEY).verifier)


def lines(seal: Seal) -> int:
    return len(split_note((seal.folder / CHECKPOINT).read_text())[1])


def test_both_keys_verify_until_the_old_one_is_retired(sealed: Seal, record: Record, tmp_path: Path):
    kept, old = tmp_path / "kept", key_of(sealed)
    shutil.copy(sealed.folder / CHECKPOINT, kept)
    with sealed.open() as sealer:
        sealer.rotate_key("a year has passed", "ada")
        with pytest.raises(BadKey, match="two keys sign already"):
            sealer.rotate_key("again", "ada")
    new = key_of(sealed)
    assert new != old
    record(tool_calls=[audit_row()])
    sealed.run()
    assert lines(sealed) == 2
    for key in (old, new):
        report = sealed.verify(kept, key=key)
        assert (report.problems, [change.act for change in report.key_changes]) == ([], ["rotate"])
    with sealed.open() as sealer:
        sealer.retire_key("all have the new one", "ada")
        with pytest.raises(BadKey, match="one key alone signs"):
            sealer.retire_key("again", "ada")
    assert (lines(sealed), beside(sealed.folder / KEY, "old").exists()) == (1, False)
    record(tool_calls=[audit_row()])
    sealed.run()
    report = sealed.verify(kept, key=new)
    assert (report.problems, [change.act for change in report.key_changes]) == ([], ["rotate", "retire"])
    assert (report.key_changes[0].key, report.key_changes[0].old, report.key_changes[0].by) == (new, old, "ada")
    (problem,) = sealed.verify(key=old).problems
    of_old, of_new = ("+".join(key.split("+")[:2]) for key in (old, new))
    assert f"none of the known keys ({of_old}) has signed it; it names {of_new}: if the known key was" in problem


@pytest.mark.long
@pytest.mark.parametrize("at", range(6))
def test_a_rotation_that_is_cut_short_is_begun_again(sealed: Seal, monkeypatch: Any, at: int):
    """At each of its steps on disk: what was signed stays good, and another rotation ends."""
    old, steps = key_of(sealed), iter(range(100))

    class Cut(Exception):
        pass

    def cutting(do: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            if next(steps) == at:
                raise Cut
            return do(*args, **options)

        return step

    with monkeypatch.context() as patched:
        for name in ("write_key", "replace_file", "keep_verifier"):
            patched.setattr(f"audit_svc.seal.sealer.{name}", cutting(Sealer.__init__.__globals__[name]))
        patched.setattr(Sealer, "_enter", cutting(Sealer._enter))
        with pytest.raises(Cut), sealed.open() as sealer:
            sealer.rotate_key("a year has passed", "ada")
    sealed.run()
    assert not sealed.verify(key=key_of(sealed)).problems
    with sealed.open() as sealer:
        if len(read_keys(sealed.folder / KEY)) == 1:
            sealer.rotate_key("once more", "ada")
    assert lines(sealed) == 2
    assert not sealed.verify(key=old).problems
    assert not sealed.verify(key=key_of(sealed)).problems


def test_a_restore_is_still_known_behind_a_rotation(sealed: Seal, record: Record, writer: Any):
    record(tool_calls=[audit_row() for _ in range(4)])
    sealed.run()
    writer.run(lambda connection: connection.execute("DELETE FROM tool_call_log WHERE position > 8")).result()
    with sealed.open() as sealer:
        sealer.accept_restore("the disk died", "ada")
        sealer.rotate_key("to be sure", "ada")
    record(tool_calls=[audit_row()])
    sealed.run()
    assert not sealed.verify().problems


def test_a_key_that_the_log_does_not_know_is_refused(sealed: Seal):
    write_key(sealed.folder / KEY, Signer.new("ledger.example.com/test"))
    with pytest.raises(Exception, match="none of the known keys"):
        sealed.open()


def test_the_commands_rotate_and_retire(sealed: Seal):
    where = ("--db", str(sealed.database), "--seal", str(sealed.folder))
    new = invoke(program, ["seal", "key", "rotate", "--reason", "a year has passed", *where]).stdout.strip()
    assert new == key_of(sealed)
    assert f"note   {new} is the key beside" in invoke(program, ["verify", "--key", new, *where]).stdout
    retired = invoke(program, ["seal", "key", "retire", "--reason", "all have it", *where])
    assert retired.stdout == f"signed by {new} alone\n"
    again = invoke(program, ["seal", "key", "retire", "--reason", "x", *where])
    assert (again.exit_code, "one key alone signs" in again.stderr) == (1, True)
