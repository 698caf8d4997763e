"""Approvals and stops on a real gateway: who may, what it does, and what is on the record afterwards."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from onrecord.audit.v1 import audit_pb2, questions_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2, gateway_pb2_grpc

from demo.processes import REPOSITORY, environment, start_service
from service_kit.access.roles import Role, make_token
from tests.audit_svc.stubs import LedgerStub
from tests.ui.conftest import TOKEN, WINDOWS, Browser, Pages, findings, showing
from tests.ui.test_pages import words

pytestmark = pytest.mark.ui

PEOPLE = {"ada": Role.CALLER, "bob": Role.APPROVER, "ops": Role.ADMIN}
SCRIPT = """
[[steps]]
text = "I will write it."
tool_calls = [{ name = "bash", arguments = { command = "echo '<b>hello</b>'" } }]
[[steps]]
text = "Done."
"""


class House:
    """A ledger, a gateway whose commands ask, and three people."""

    def __init__(self, ledger: str, gateway: str, folder: Path, tokens: dict[str, str]) -> None:
        self.ledger, self.gateway, self._folder, self._tokens = ledger, gateway, folder, tokens

    @contextmanager
    def shown_to(self, name: str) -> Iterator[Pages]:
        """The pages with the credential of one of them."""
        folder = self._folder / f"{name}-{time.monotonic_ns()}"
        folder.mkdir()
        (folder / "token").write_text(self._tokens[name])
        (folder / "token").chmod(0o600)
        with showing(folder, self.ledger, "--gateway", self.gateway, "--token-file", str(folder / "token")) as pages:
            yield pages

    def run(self) -> "Turn":
        """Ada's turn, which asks for a command."""
        return Turn(self.gateway, self._tokens["ada"])

    def rows(self, is_there: Callable[[audit_pb2.AuditRow], bool]) -> audit_pb2.AuditRow:
        """The first row of the ledger that is so, once it is there."""
        deadline = time.monotonic() + 120
        with grpc.insecure_channel(self.ledger) as channel:
            while time.monotonic() < deadline:
                listed = LedgerStub(channel).ListToolCalls(questions_pb2.ListToolCallsRequest())
                if found := [each.tool_call for each in listed.tool_calls if is_there(each.tool_call)]:
                    row: audit_pb2.AuditRow = found[0]
                    return row
                time.sleep(0.05)
        raise AssertionError("no such row came")


class Turn(threading.Thread):
    """A turn that runs, until its stream ends; why it was refused, if it was."""

    def __init__(self, gateway: str, token: str) -> None:
        super().__init__()
        self._gateway, self._metadata = gateway, (("authorization", f"Bearer {token}"),)
        self.error = ""
        self.start()

    def run(self) -> None:
        with grpc.insecure_channel(self._gateway) as channel:
            stub: Any = gateway_pb2_grpc.GatewayServiceStub(channel)
            request = gateway_pb2.RunTurnRequest(input="write it")
            try:
                list(stub.RunTurn(request, metadata=self._metadata, timeout=60))
            except grpc.RpcError as error:
                self.error = error.details() or ""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    made = {name: make_token(name, [role]) for name, role in PEOPLE.items()}
    (folder / "callers").write_text("\n".join(table for _, table in made.values()))
    (folder / "callers").chmod(0o600)
    (folder / "script.toml").write_text(SCRIPT)
    (folder / "workspace").mkdir()
    serve = [sys.executable, "-m", "demo.model_server", "--script", str(folder / "script.toml"), "--port", "0"]
    with ExitStack() as stack:
        model = stack.enter_context(
            subprocess.Popen(serve, env=environment({}), cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        )
        stack.callback(model.terminate)
        assert model.stdout is not None
        printed = re.search(r"http://\S+", model.stdout.readline())
        assert printed is not None
        audit = {"AUDIT_DB": str(folder / "audit.db"), "AUDIT_LISTEN": "127.0.0.1:0", "AUDIT_SEAL_SECONDS": "0.5"}
        ledger = stack.enter_context(start_service("audit_svc", audit, "serve"))
        env = {
            "GATEWAY_LISTEN": "127.0.0.1:0", "GATEWAY_AUDIT_TARGET": ledger.address,
            "GATEWAY_STATE_DIR": str(folder / "state"), "GATEWAY_WORKSPACE": str(folder / "workspace"),
            "GATEWAY_BASH_SANDBOX": "off_as_root", "GATEWAY_OLLAMA_URL": printed[0], "GATEWAY_OLLAMA_MODEL": "scripted",
            "GATEWAY_DEFAULT_ENGINE": "ollama", "GATEWAY_TOKENS_FILE": str(folder / "callers"),
            "GATEWAY_TOOLS": "read,bash=ask", "GATEWAY_APPROVAL_BY_OTHERS": "true",
        }  # fmt: skip
        gateway = stack.enter_context(start_service("gateway_svc", env, "serve"))
        yield House(ledger.address, gateway.address, folder, {name: token for name, (token, _) in made.items()})


def waiting(pages: Pages) -> dict[str, str]:
    """The fields of the first call that waits, once one does."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        page = pages.read("/approvals").text
        if 'name="tool_call_id"' in page:
            return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.partition("<form")[2]))
        time.sleep(0.1)
    raise AssertionError("nothing waits")


def test_an_approver_denies_with_a_reason_and_the_record_has_it(house):
    with house.shown_to("bob") as pages:
        turn = house.run()
        fields = waiting(pages)
        page = words(pages.read("/approvals").text)
        assert "echo '<b>hello</b>'" in page
        assert "for ada" in page
        assert fields["digest"] in page
        own = {name: fields[name] for name in ("tool_call_id", "key_id", "digest")}

        wrong = pages.send("/approvals", "/approvals/answer", **{**own, "digest": "00" * 32}, verdict="allowed")
        assert (wrong.status, "DIGEST_MISMATCH" in wrong.text) == (409, True)
        for verdict in ("", "perhaps"):
            assert pages.send("/approvals", "/approvals/answer", **own, verdict=verdict).status == 400
        assert pages.send("/approvals", "/approvals/answer", **{**own, "digest": "x"}, verdict="denied").status == 400

        done = pages.send("/approvals", "/approvals/answer", **own, verdict="denied", reason="not <b>today</b>")
        assert (done.status, done.headers["location"]) == (303, "/approvals?answered=denied")
        assert "Your answer was taken: denied" in words(pages.read("/approvals?answered=denied").text)
        again = pages.ask("/approvals/answer", "POST", "verdict=denied", Cookie=f"onrecord_ui={TOKEN}")
        assert again.status == 403
        turn.join(60)
        row = house.rows(lambda row: row.id == own["tool_call_id"])
        assert (row.outcome, row.decision.decided_by) == (common_pb2.OUTCOME_DENIED, "bob")
        told = words(pages.read(f"/session?id={row.session_id}").text)
        assert "decided by bob" in told
        assert "not <b>today</b>" in told


def test_whose_turn_it_is_does_not_approve_it(house):
    turn = house.run()
    with house.shown_to("ada") as pages:
        fields = waiting(pages)
        own = {name: fields[name] for name in ("tool_call_id", "key_id", "digest")}
        refused = pages.send("/approvals", "/approvals/answer", **own, verdict="allowed")
        assert (refused.status, "PERMISSION_DENIED" in refused.text) == (403, True)
        assert pages.send("/approvals", "/stops", scope="everything", reason="mine").status == 403
    with house.shown_to("bob") as pages:
        assert pages.send("/approvals", "/approvals/answer", **own, verdict="allowed").status == 303
        turn.join(60)
        assert house.rows(lambda row: row.id == own["tool_call_id"]).outcome == common_pb2.OUTCOME_SUCCEEDED
        assert pages.send("/health", "/stops", scope="everything", reason="mine").status == 403


def test_an_administrator_stops_agents_and_lifts_it(house):
    with house.shown_to("ops") as pages:
        for fields in ({"scope": ""}, {"scope": "all"}, {"scope": "engine"}, {"scope": "label", "value": "x"},
                       {"scope": "everything", "value": "x"}):  # fmt: skip
            assert pages.send("/health", "/stops", reason="a drill", **fields).status == 400, fields
        assert pages.send("/health", "/stops", scope="everything", reason=" ").status == 400
        assert "None: agents run" in words(pages.read("/health").text)

        assert pages.send("/health", "/stops", scope="engine", value="ollama", reason="a <i>drill</i>").status == 303
        page = pages.read("/health").text
        assert "engine ollama since" in words(page)
        assert "a <i>drill</i>" in words(page)
        turn = house.run()
        turn.join(60)
        assert "a <i>drill</i>" in turn.error
        (stop,) = re.findall(r'name="stop_id" value="([^"]+)"', page)
        assert pages.send("/health", "/stops/resume", stop_id="none", reason="over").status == 404
        assert pages.send("/health", "/stops/resume", stop_id=stop, reason="it is over").status == 303
        assert "None: agents run" in words(pages.read("/health").text)


def test_in_a_browser_a_person_allows_a_call_and_stops_agents(house, chromium, axe):
    """By the forms themselves, whose requests say where they come from."""
    answers = {"Allow": ("allowed", common_pb2.OUTCOME_SUCCEEDED), "Deny": ("denied", common_pb2.OUTCOME_DENIED)}
    with house.shown_to("bob") as pages:
        for (width, scheme), button in zip(WINDOWS, ("Allow", "Deny", "Deny", "Allow"), strict=True):
            turn = house.run()
            waiting(pages)
            window = Browser(chromium, pages, width, scheme)
            page = window.open("/approvals")
            assert findings(page, axe) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.get_by_label("Reason").fill(reason := f"seen at {width}, {scheme}")
            page.get_by_role("button", name=button).click()
            told, outcome = answers[button]
            page.get_by_text(f"Your answer was taken: {told}").wait_for()
            assert (window.said, window.elsewhere) == ([], [])
            window.context.close()
            turn.join(60)
            assert house.rows(lambda row, reason=reason: row.decision.reason == reason).outcome == outcome
    with house.shown_to("ops") as pages:
        for width, scheme in WINDOWS:
            window = Browser(chromium, pages, width, scheme)
            page = window.open("/health")
            assert findings(page, axe) == []
            page.locator("select[name=scope]").select_option("tool")
            page.get_by_label("Its name").fill("bash")
            page.get_by_label("Why, which").fill("a drill")
            page.get_by_role("button", name="Stop", exact=True).click()
            page.get_by_text("tool bash").wait_for()
            assert findings(page, axe) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.get_by_label("Why they may go on").fill("over")
            page.get_by_role("button", name="Lift this stop").click()
            page.get_by_text("None: agents run").wait_for()
            assert (window.said, window.elsewhere) == ([], [])
            window.context.close()


def test_with_a_gateway_everything_is_known(house):
    """The record of this house is whole, and the page says so once the seal has what was committed."""
    with house.shown_to("ops") as pages:
        deadline = time.monotonic() + 120
        while "Is everything on the record? yes" not in (page := words(pages.read("/").text)):
            assert time.monotonic() < deadline, page
            time.sleep(0.2)
