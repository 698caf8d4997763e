"""onrecord: one command for people. Each command's module is loaded when it runs."""

import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import NoReturn

import audit_svc.__main__
import gateway_svc.__main__
import intake_svc.__main__
from onrecord_cli.folder import (
    DOOR_HTTP_PORT,
    DOOR_PORT,
    Following,
    Running,
    find,
    ledger_file,
    short,
    state_folder,
    why_ended,
)
from service_kit import client
from service_kit.terminal import elsewhere, failures
from service_kit.terminal.printing import Printer
from service_kit.terminal.program import Command, Group, Program

_COMMANDS = "onrecord_cli.commands"
_LEDGER = audit_svc.__main__.program.root.commands
_GATEWAY = gateway_svc.__main__.program.root.commands
_DOOR = intake_svc.__main__.program.root.commands


def _sessions() -> Group:
    kept, listed = _GATEWAY["sessions"], _LEDGER["sessions"]
    assert isinstance(kept, Group)  # noqa: S101
    assert isinstance(listed, Command)  # noqa: S101
    return Group("List sessions, the newest first; delete or export what was said in one.", kept.commands, listed)


program = Program(
    "onrecord",
    Group(
        "LLM agents, on the record.",
        {
            "up": Command(
                f"{_COMMANDS}:up", "Start the services on your own record, and keep them until ^C.", is_service=True
            ),
            "run": Command(f"{_COMMANDS}:run", "Give an agent a task and watch it work."),
            "chat": Command(f"{_COMMANDS}:chat", "Talk with an agent, turn after turn, in one session."),
            "show": _LEDGER["show"],
            "sessions": _sessions(),
            **{
                name: _LEDGER[name]
                for name in ("calls", "requests", "errors", "usage", "controls", "queries", "compare", "tail", "export")
            },
            "producers": _LEDGER["producers"],
            **{name: _GATEWAY[name] for name in ("transcript", "approvals", "approve", "deny", "stop", "stops")},
            "resume": Command("onrecord_cli.resuming:resume", "Lift a stop."),
            "engines": _GATEWAY["engines"],
            "agents": Group("Put agents of others on the record.", {"setup": _DOOR["setup"]}),
            **{name: _LEDGER[name] for name in ("verify", "proof", "check", "backup")},
            "open": _LEDGER["ui"],
            "completion": Command(
                "service_kit.terminal.completing:completion",
                "Print what makes a shell complete commands, options and values.",
                {"program": "onrecord"},
            ),
        },
    ),
    Command("service_kit.client:client_options", ""),
    told={"down": "^C where `onrecord up` runs ends all"},
)


def main(words: Sequence[str] | None = None) -> NoReturn:
    """The console script."""
    words = sys.argv[1:] if words is None else words
    _point_at_what_runs(words)
    program.main(words)


def _point_at_what_runs(words: Sequence[str]) -> None:
    """Makes the commands of all services ask what runs on the state folder; where nothing does, the ledger's file.

    What the environment says already stands.
    """
    folder, has_target = state_folder(), any(word.partition("=")[0] == "--target" for word in words)
    places = {
        "AUDIT_DB": str(ledger_file(folder)),
        "GATEWAY_STATE_DIR": str(folder / "gateway"),
        "INTAKE_STATE_DIR": str(folder / "intake"),
    }
    if running := find(folder):
        if words[:2] == ["agents", "setup"] and "--write" in words:
            _warn_of_ports(running)
        places |= {"AUDIT_LISTEN": running.ledger, "GATEWAY_LISTEN": running.gateway}
        places |= {"INTAKE_LISTEN": running.door, "INTAKE_HTTP_LISTEN": running.door_http}
        client.where_now = Following(folder, running)
        if not has_target:
            client.why_ended = partial(why_ended, folder, running)
    elif not has_target and not os.environ.get("AUDIT_LISTEN"):
        if ledger_file(folder).exists():
            places["ONRECORD_DB"] = places["AUDIT_DB"]
        if not os.environ.get("GATEWAY_LISTEN"):
            command = next((word for word in words if word in program.root.commands), "")
            client.nothing_runs = (
                f"there is no ledger yet on {short(folder)}: `onrecord up` makes it; --target names another place"
                if command in _LEDGER and "ONRECORD_DB" not in places
                else f"nothing runs on {short(folder)}: `onrecord up` starts it; --target names another place"
            )
    if not os.environ.get("AUDIT_DB"):  # which `onrecord up` does not look at
        failures.own_names["`audit-svc serve`"] = "`onrecord up`"
    ours = {
        service: {} if os.environ.get(variable) else {option or variable: places[variable]}
        for service, option, variable in (
            ("audit-svc", "--db", "AUDIT_DB"),
            ("gateway-svc", "", "GATEWAY_STATE_DIR"),
            ("intake-svc", "", "INTAKE_STATE_DIR"),
        )
    }
    for name, value in places.items():
        if value and not os.environ.get(name):
            os.environ[name] = value
    for service, variable in (("audit-svc", "AUDIT_LISTEN"), ("gateway-svc", "GATEWAY_LISTEN"), ("intake-svc", "")):
        target = os.environ.get(variable)
        elsewhere.places[service] = ({"--target": target} if target else {}) | ours[service]
    client.how_to_start = "`onrecord up` starts it"
    for service, commands in (("audit-svc", _LEDGER), ("gateway-svc", _GATEWAY)):
        for name in program.root.commands.keys() & commands.keys():
            failures.own_names[f"`{service} {name}"] = f"`onrecord {name}"
    if client.nothing_runs and words[:1] != ["up"]:
        failures.own_names["`gateway-svc resume"] = "`onrecord up`, then `onrecord resume"


def _warn_of_ports(running: Running) -> None:
    """Says what becomes of an agent's configuration that names ports which the door has for this time only."""
    usual = {running.door: DOOR_PORT, running.door_http: DOOR_HTTP_PORT}
    taken = [str(port) for address, port in usual.items() if address and not address.endswith(f":{port}")]
    if taken:
        Printer(stderr=True).print(
            f"the door has other ports each time, since something else holds {' and '.join(taken)}: end that, start "
            "`onrecord up` anew, and give this command again",
            style="yellow",
        )


if __name__ == "__main__":
    main()
