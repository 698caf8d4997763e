"""Sessions of agents have the repository and the branch as labels, by whichever way these are told."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.intake_svc.conftest import House, open_house, wait_for
from tests.intake_svc.exports import calls, send
from tests.intake_svc.hooks.test_claude import before, hook
from tests.intake_svc.hooks.test_git import TOKEN, git
from tests.support.ports import own_port


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with open_house(tmp_path_factory.mktemp("labels")) as house:
        house.start_audit()
        yield house, house.start_door(INTAKE_JOIN_SECONDS="0.2")


def labels_of(house: House, session: str, *names: str) -> dict[str, str]:
    def look() -> Any:
        found = {row["key"]: row["value"] for row in house.rows("session_labels") if row["session_id"] == session}
        return found if found.keys() >= set(names) else None

    found: dict[str, str] = wait_for(look)
    return found


def told(part: Any, **attributes: str) -> None:
    for name, value in attributes.items():
        part.attributes.add(key=name.replace("__", ".")).value.string_value = value


def test_by_the_resource_and_by_a_span_that_makes_no_row(quick):
    house, door = quick
    export = calls(2, session="by-otlp")
    told(
        export.resource_spans[0].resource,
        vcs__repository__url__full=f"https://ada:{TOKEN}@example.com/acme/shop.git",
        vcs__ref__head__name="main",
    )
    send(door.grpc, export)
    said = {"repository": "https://example.com/acme/shop.git", "branch": "main"}
    assert labels_of(house, "by-otlp", *said) == said

    frame = calls(1, session="by-copilot").resource_spans[0]
    span = frame.scope_spans[0].spans[0]
    frame.scope_spans[0].scope.name = "github.copilot"
    span.attributes[0].value.string_value = "invoke_agent"
    told(span, github__copilot__git__repository="acme/shop", github__copilot__git__branch="it is a sentence")
    export.resource_spans[0].CopyFrom(frame)
    send(door.grpc, export)
    assert labels_of(house, "by-copilot", "repository") == {"repository": "acme/shop"}

    command = [sys.executable, "-m", "audit_svc", "usage", "--by", "repository", "--json", "--db", str(house.db)]
    command += ["--since", "2020-01-01"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    groups = [json.loads(line) for line in found.splitlines()]
    assert "https://example.com/acme/shop.git" in str(groups)
    assert not list(house.state.glob("spool/dead-letters/*.jsonl")), "a row was refused"


@pytest.mark.long
@pytest.mark.parametrize("is_kept", [False, True])
def test_by_a_hook_that_runs_in_a_repository(quick, tmp_path, monkeypatch, is_kept):
    house, door = quick
    work = tmp_path / "work"
    work.mkdir()
    git(work, "init")
    git(work, "remote", "add", "origin", f"https://{TOKEN}@example.com/acme/{is_kept}.git")
    session, folder = f"by-hook-{is_kept}", tmp_path / "kept"
    root = str(Path.cwd())
    monkeypatch.chdir(work)
    if is_kept:
        with own_port() as port:
            hook(f"127.0.0.1:{port}", before(session), folder=folder, root=root)
        assert TOKEN not in (folder / "kept").read_text()
    hook(door.http, before(session if not is_kept else "another"), folder=folder, root=root)
    said = {"repository": f"https://example.com/acme/{is_kept}.git", "branch": "main"}
    assert labels_of(house, session, *said) == said
    git(work, "checkout", "-b", "topic")
    hook(door.http, before(session, "toolu_2"), folder=folder, root=root)
    wait_for(lambda: labels_of(house, session, "branch")["branch"] == "topic")
