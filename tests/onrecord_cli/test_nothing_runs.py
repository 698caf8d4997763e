"""Where nothing runs there is nobody to ask: `onrecord` says so at once, and how it is begun."""

import pytest

from tests.support.forked import run_command


@pytest.mark.parametrize("words", [("engines",), ("approvals",)])
def test_it_is_said_that_nothing_runs_and_what_starts_it(tmp_path, words):
    ended = run_command("onrecord_cli", {"HOME": str(tmp_path)}, *words)
    assert ended.returncode == 1
    assert ended.stderr == (
        "nothing runs on ~/.local/share/onrecord: `onrecord up` starts it; --target names another place\n"
    )


@pytest.mark.parametrize("words", [("calls",), ("sessions",), ("show", "s-1"), ("usage", "--by", "tool")])
def test_it_is_said_that_there_is_no_ledger_and_what_makes_it(tmp_path, words):
    ended = run_command("onrecord_cli", {"HOME": str(tmp_path)}, *words)
    assert ended.returncode == 1
    assert ended.stderr == (
        "there is no ledger yet on ~/.local/share/onrecord: `onrecord up` makes it; --target names another place\n"
    )


@pytest.mark.parametrize("words", [("verify",), ("export", "--format", "sealed", "--output", "x"), ("check",)])
def test_what_makes_a_file_is_said_where_no_other_was_named(tmp_path, words):
    home = {"HOME": str(tmp_path)}
    asks = "for a running service give --target HOST:PORT; " if words == ("verify",) else ""
    for named, said in (
        ((), f"/.local/share/onrecord/audit/audit.db: {asks}`onrecord up` makes it"),
        (("--db", "/no/x.db"), "there is no file /no/x.db"),
    ):
        ended = run_command("onrecord_cli", home, *words, *named)
        assert ended.returncode > 0
        assert (ended.stdout + ended.stderr).rstrip().endswith(said)


def test_a_file_that_was_named_is_made_by_nothing(tmp_path):
    home = {"HOME": str(tmp_path)}
    for ended in (
        run_command("onrecord_cli", home, "calls", "--db", "/no/x.db"),
        run_command("onrecord_cli", home | {"ONRECORD_DB": "/no/x.db"}, "calls"),
    ):
        assert (ended.returncode, ended.stderr) == (1, "there is no file /no/x.db\n")


@pytest.mark.parametrize("words", [("engines",), ("calls",)])
def test_who_is_named_is_asked(tmp_path, words):
    home = {"HOME": str(tmp_path)}
    for ended in (
        run_command("onrecord_cli", home, *words, "--target", "127.0.0.1:1"),
        run_command("onrecord_cli", home | {"AUDIT_LISTEN": "127.0.0.1:1", "GATEWAY_LISTEN": "127.0.0.1:1"}, *words),
    ):
        assert ended.returncode == 1
        assert ended.stderr.startswith("nobody listens on 127.0.0.1:1: is a")
