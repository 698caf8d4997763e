"""The way of a tool call is as docs/architecture.md tells it."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from onrecord.gateway.v1 import gateway_pb2 as pb

from audit_svc.ledger.group_commit import GroupCommit
from audit_svc.servicer import AuditServicer
from demo.script import Call, Script, Step
from gateway_svc.engines.ollama import OllamaEngine
from gateway_svc.servicer import GatewayServicer
from gateway_svc.tools.read import ReadTool
from recording.delivery.sender import Sender
from recording.producing.spool_logger import SpoolLogger
from tests.gateway_svc.house import open_house
from tests.recording.samples import opened

ROOT = Path(__file__).parents[2]
OF_PROTOCOLS = {"Engine": OllamaEngine.__name__, "Tool": ReadTool.__name__}
ELSEWHERE = {kind.__name__: kind for kind in (Sender, AuditServicer, GroupCommit)}
MOST_HOPS = 40


def told() -> list[list[str]]:
    """The hops of each line of the table."""
    table = (ROOT / "docs/architecture.md").read_text().partition("## A tool call's way")[2].partition("\n## ")[0]
    return [re.findall(r"`([\w.]+)`", line) for line in table.splitlines() if line.startswith("| ") and "`" in line]


@contextmanager
def calls(found: list[str]) -> Iterator[None]:
    """Adds the names of the functions of this thread that begin, or that go on."""

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            found.append(frame.f_code.co_qualname)

    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)


async def test_a_call_takes_the_way_that_is_told(tmp_path: Path) -> None:
    *here, in_the_ledger = told()
    assert sum(map(len, [*here, in_the_ledger])) <= MOST_HOPS
    for hop in in_the_ledger:
        kind, name = hop.split(".")
        assert hasattr(ELSEWHERE[kind], name), hop

    read = Script(steps=(Step(tool_calls=(Call(name="read", arguments={"path": "notes.txt"}),)), Step(text="Done.")))
    found: list[str] = []
    with opened(tmp_path / "state") as spool:
        logger = SpoolLogger(spool, "best_effort", "interval")
        async with open_house(tmp_path, read, read, logger=logger) as house:
            servicer = GatewayServicer(house.turns, house.sessions, house.agents, "ollama")
            with calls(found):
                async for _ in servicer.RunTurn(pb.RunTurnRequest(input="go"), None):  # type: ignore[arg-type]
                    pass
    begin = 0
    for line in here:
        at = begin = found.index(line[0], begin)
        for hop in line[1:]:
            kind, dot, name = hop.rpartition(".")
            wanted = f"{OF_PROTOCOLS.get(kind, kind)}{dot}{name}"
            assert wanted in found[at:], f"{hop} does not follow in {line}"
            at = found.index(wanted, at)
