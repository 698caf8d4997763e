"""A round's world with clients that go on with their sessions, and a look at what was kept of them.

What a model was sent must be what its session has on disk, from the beginning, or from where the model was told that
what was said before was left out: every message that a model saw is there, in its place, and none is there twice.
"""

import asyncio
import os
import random
from collections import Counter
from itertools import count, takewhile
from pathlib import Path

import grpc
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc
from uuid_utils import uuid7

from demo.processes import Service
from demo.script import Call, Script, Step
from gateway_svc.conversations.encryption import Keys
from gateway_svc.conversations.files import transcript
from gateway_svc.conversations.files.check import check
from gateway_svc.conversations.files.places import owner_of
from gateway_svc.conversations.files.store import FileConversations
from gateway_svc.conversations.session import SessionState
from gateway_svc.messages import AssistantMessage, Message, ToolMessage, UserMessage
from recording.key_file import Key
from tests.faults.gateway_world import TURNS_AT_ONCE, GatewayWorld
from tests.faults.ledger import Findings
from tests.faults.standing_log import LogPipe
from tests.faults.world import wait_for

Said = list[tuple[str, str]]
"""Who said what."""
LARGE = "x" * 2**20
ANSWER = ("assistant", "Done.")
_ROLES: dict[type, str] = {UserMessage: "user", AssistantMessage: "assistant", ToolMessage: "tool"}
_STEP = Step(tool_calls=(Call(name="bash", arguments={"command": "echo ran >> ran.log"}),), repeat=3)
_PASSING = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.ABORTED)


class SessionsWorld(GatewayWorld):
    """Each of its clients has a session, which it goes on with when the gateway was killed."""

    gateway_module = "tests.faults.faulty_writes"
    keys = Keys()
    """Those that sessions are encrypted by."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._model.script = Script(steps=(_STEP, Step(text=ANSWER[1])))
        self._sessions: dict[int, str] = {}
        self._numbers = count()
        self._completed: list[str] = []
        """What was asked in turns that ended well."""
        self.failed = 0
        """How many turns the disk refused."""
        self._large = 0

    def _run_turns(self, address: str) -> None:
        number = next(self._numbers) % TURNS_AT_ONCE
        with grpc.insecure_channel(address) as channel:
            stub = gateway_pb2_grpc.GatewayServiceStub(channel)
            while True:
                try:
                    self._run_turn(stub, number)
                except grpc.RpcError as error:
                    if error.code() not in _PASSING:  # the gateway was killed
                        return
                    self.failed += 1

    def _run_turn(self, stub: gateway_pb2_grpc.GatewayServiceStub, number: int) -> None:
        request = pb.RunTurnRequest(input=f"client {number} asks {uuid7()}")
        if session_id := self._sessions.get(number):
            request.session_id = session_id
        for event in stub.RunTurn(request, timeout=300):
            if event.HasField("turn_accepted"):
                self._sessions[number] = event.turn_accepted.session_id
            elif event.HasField("tool_call_started"):
                self._started.add(event.tool_call_started.tool_call_id)
            elif event.HasField("tool_call_finished"):
                self._finished[event.tool_call_finished.tool_call_id] = event.tool_call_finished.outcome
            elif event.HasField("turn_finished"):
                if event.turn_finished.stop_reason == pb.STOP_REASON_COMPLETED:
                    self._completed.append(request.input)
                else:
                    self.failed += 1

    def begin_large_session(self, mebibytes: int) -> None:
        """Gives the first client a session with so much said in it."""
        asyncio.run(self._write_large(mebibytes))

    async def _write_large(self, mebibytes: int) -> None:
        home = FileConversations(self.state_dir, memory_bytes=1)
        state = SessionState(id=str(uuid7()), revision=1, turns=mebibytes // 2)
        await home.create(state, synced=False)
        lease = await home.open(state.id)
        for _ in range(mebibytes // 2):
            lease.append(UserMessage(LARGE))
            lease.append(AssistantMessage(LARGE))
        await lease.save()
        await lease.close()
        self._sessions[0], self._large = state.id, mebibytes

    def wait_for_large_session(self) -> None:
        """Until another turn of that session has ended, which had to be read for it."""
        before = self._large_completed()
        wait_for(lambda: self._large_completed() > before, "the large session does not go on", seconds=900)

    def _large_completed(self) -> int:
        return sum(text.startswith("client 0 ") for text in self._completed)

    def _examine(self, database: Path, findings: Findings) -> None:
        super()._examine(database, findings)
        root = self.state_dir / "sessions"
        findings.report("corrupt", (found.told for found in check(root, self.keys) if found.is_damage))
        kept = []
        for path in root.rglob("*.conversation"):
            self._look_at_size(path, findings)
            kept.append([part for part in _said(path, self.keys) if part[1] != LARGE])
        seen = [
            [(m["role"], m["content"]) for m in request.json["messages"] if m["role"] != "system"]
            for request in list(self._model.requests)
        ]
        judge(findings, seen, kept, self._completed)

    def _look_at_size(self, path: Path, findings: Findings) -> None:
        if self._large and path.stem == self._sessions[0] and path.stat().st_size < self._large * 2**20:
            findings.report("lost", [f"of {self._large} MiB {path.stat().st_size} bytes are left"])


def judge(findings: Findings, seen: list[Said], kept: list[Said], completed: list[str]) -> None:
    """Reports what models saw, or clients were told, and no session has; and what one has twice."""
    asked = Counter(text for said in kept for role, text in said if role == "user")
    findings.report("doubled", (text for text, times in asked.items() if times > 1))
    places = {part: (said, at) for said in kept for at, part in enumerate(said) if part[0] == "user"}
    for text in completed:
        said, at = places.get(("user", text), ([], 0))
        turn = list(takewhile(lambda part: part[0] != "user", said[at + 1 :]))
        if turn[-1:] != [ANSWER]:
            findings.report("lost", [f"the answer to {text!r}, which its client was told"])
    for (role, text), *rest in seen:
        # what is left out to fit the model's context is told ahead of the client's own words
        mark, word, asking = text.partition("client")
        own = [(role, word + asking), *rest]
        said, at = places.get(own[0], ([], 0))
        if said[at : at + len(own)] != own or (at and not mark):
            findings.report("lost", [f"of what a model saw of a session, from {own[0][1]!r} on"])


class EncryptedSessionsWorld(SessionsWorld):
    """Its sessions are encrypted from the first gateway on."""

    keys = Keys([Key("key", b"k" * 32)])

    def start_gateway(self, log: LogPipe | None = None, **settings: str) -> Service:
        """A gateway with the file of keys."""
        file = self.folder / "keys"
        file.write_text(f"key {(b'k' * 32).hex()}\n")
        file.chmod(0o600)
        return super().start_gateway(log, **{"GATEWAY_SESSIONS_KEY_FILE": str(file), **settings})

    def _examine(self, database: Path, findings: Findings) -> None:
        super()._examine(database, findings)
        kept = {path: path.read_bytes() for path in (self.state_dir / "sessions").glob("owner-*/*/*")}
        words = (b'"user":', b'"assistant":', b'"tool":', b'"revision":')
        findings.report(
            "corrupt", (f"{path.name} in clear" for path, data in kept.items() if any(word in data for word in words))
        )


def _said(path: Path, keys: Keys) -> Said:
    fd = os.open(path, os.O_RDONLY)
    try:
        messages: list[Message] = transcript.read(fd, keys.cipher(path.stem, owner_of(path))).messages
    finally:
        os.close(fd)
    return [(_ROLES[type(message)], str(getattr(message, "text", ""))) for message in messages]
