"""Where nothing runs there is nobody to ask: `onrecord` says so at once, and how it is begun."""

import os

import pytest

from service_kit import client
from service_kit.terminal import elsewhere, failures
from tests.support.forked import run_command


@pytest.mark.long
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


@pytest.mark.long
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


def test_the_commands_of_services_are_named_with_this_folder(tmp_path):
    state = tmp_path / "a state"
    home = {"HOME": str(tmp_path), "ONRECORD_STATE_DIR": str(state)}
    told = run_command("onrecord_cli", home, "dead-letters").stderr
    for service in ("gateway", "intake"):
        line = f"{service.upper()}_STATE_DIR='{state}/{service}' {service}-svc dead-letters list|show|resend|drop"
        assert f"`{line}`" in told
    told = run_command("onrecord_cli", home | {"GATEWAY_STATE_DIR": "/their/own"}, "dead-letters").stderr
    assert "use `gateway-svc dead-letters" in told


@pytest.mark.long
def test_a_file_that_was_named_is_made_by_nothing(tmp_path):
    home = {"HOME": str(tmp_path)}
    for ended in (
        run_command("onrecord_cli", home, "calls", "--db", "/no/x.db"),
        run_command("onrecord_cli", home | {"ONRECORD_DB": "/no/x.db"}, "calls"),
    ):
        assert (ended.returncode, ended.stderr) == (1, "there is no file /no/x.db\n")


def test_where_nothing_runs_a_stop_is_lifted_once_something_does(tmp_path, monkeypatch):
    from onrecord_cli import __main__ as onrecord

    monkeypatch.setattr(failures, "own_names", {})
    monkeypatch.setattr(client, "nothing_runs", "")
    monkeypatch.setattr(client, "how_to_start", "")
    monkeypatch.setattr(elsewhere, "places", {})
    monkeypatch.setattr(os, "environ", {"HOME": str(tmp_path)})
    for words, typed in ((["run", "hi"], "`onrecord up`, then `onrecord resume S`"), (["up"], "`onrecord resume S`")):
        failures.own_names.clear()
        onrecord._point_at_what_runs(words)
        assert failures.as_typed("`gateway-svc resume S` lifts it") == f"{typed} lifts it"


@pytest.mark.long
def test_that_a_file_can_be_read_is_said_where_a_ledger_is_away():
    ended = run_command("audit_svc", {}, "calls", "--target", "127.0.0.1:1")
    assert "running there? --db FILE reads a ledger's file; --target or AUDIT_LISTEN names another" in ended.stderr
    ended = run_command("audit_svc", {}, "tail", "--target", "127.0.0.1:1")
    assert "--db" not in ended.stderr


@pytest.mark.long
@pytest.mark.parametrize("words", [("engines",), ("calls",)])
def test_who_is_named_is_asked(tmp_path, words):
    home = {"HOME": str(tmp_path)}
    for ended in (
        run_command("onrecord_cli", home, *words, "--target", "127.0.0.1:1"),
        run_command("onrecord_cli", home | {"AUDIT_LISTEN": "127.0.0.1:1", "GATEWAY_LISTEN": "127.0.0.1:1"}, *words),
    ):
        assert ended.returncode == 1
        assert ended.stderr.startswith("nobody listens on 127.0.0.1:1: is a")
