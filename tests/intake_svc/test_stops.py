"""The stops of a gateway reach the hooks of other agents; what cannot be known refuses in strict."""

import json
from pathlib import Path
from typing import Any

import pytest

from demo.processes import Service, run_command, start_service
from tests.intake_svc.conftest import House, open_house, wait_for
from tests.intake_svc.hooks.test_claude import before, hook, rows_of
from tests.support.ports import own_port

pytestmark = pytest.mark.long
STRICT = ("--mode", "strict")


def gateway(folder: Path, address: str) -> Service:
    env = {
        "GATEWAY_LISTEN": address,
        "GATEWAY_AUDIT_TARGET": "127.0.0.1:1",
        "GATEWAY_STATE_DIR": str(folder / "gateway"),
        "GATEWAY_WORKSPACE": str(folder / "workspace"),
        "GATEWAY_BASH_SANDBOX": "off_as_root",
        "GATEWAY_OLLAMA_URL": "http://127.0.0.1:1",
        "GATEWAY_OLLAMA_MODEL": "m",
    }
    (folder / "workspace").mkdir(exist_ok=True)
    return start_service("gateway_svc", env, "serve")


def admin(target: str, *words: str) -> str:
    done = run_command("gateway_svc", {}, *words, "--target", target)
    assert done.returncode == 0, done.stderr
    return done.stdout


def denied(house: House, door: Any, session: str, *words: str, **more: Any) -> str:
    """The reason by which a call is refused; empty where it is not."""
    said = hook(door.http, before(session, **more), *words, folder=house.folder / "kept")
    assert said.returncode == 0, said.stderr
    answer = json.loads(said.stdout)["hookSpecificOutput"] if said.stdout else {"permissionDecision": ""}
    return str(answer["permissionDecisionReason"]) if answer["permissionDecision"] == "deny" else ""


def test_a_stop_refuses_calls_until_it_is_lifted_also_over_a_restart_and_while_the_gateway_is_away(tmp_path):
    with open_house(tmp_path) as house, own_port() as port, own_port() as http:
        house.start_audit()
        target = f"127.0.0.1:{port}"
        settings = {"INTAKE_STOPS_TARGET": target, "INTAKE_JOIN_SECONDS": "0.2"}
        settings["INTAKE_HTTP_LISTEN"] = f"127.0.0.1:{http}"
        door = house.start_door(**settings)
        assert not denied(house, door, "s-open")  # best_effort, and nobody says what is stopped
        assert "does not say what is stopped" in denied(house, door, "s-unknown", *STRICT)
        (row,) = rows_of(house, "s-unknown")
        assert (row["outcome"], row["verdict"], row["rule"]) == ("denied", "denied", "stops_unknown")

        with gateway(tmp_path, target) as service:
            wait_for(lambda: not denied(house, door, "s-known", *STRICT))
            for number, scope in enumerate((("--agent", "claude-code"), ("--tool", "B*"))):
                stop = admin(target, "stop", *scope, "--reason", "a drill").partition(": ")[2].split()[0]
                wait_for(lambda: "a drill" in denied(house, door, f"s-{number}"))  # noqa: B023
                assert stop in {str(row["rule"]).removeprefix("stop:") for row in rows_of(house, f"s-{number}")}
                if scope == ("--tool", "B*"):
                    break
                admin(target, "resume", stop, "--reason", "over")
                wait_for(lambda: not denied(house, door, "s-lifted", *STRICT))
            assert not denied(house, door, "s-other-tool", tool_name="Read")
            service.kill()
        door.service.kill()
        door = house.start_door(**settings)
        assert "a drill" in denied(house, door, "s-away")
