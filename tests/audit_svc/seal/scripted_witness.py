"""A witness of https://c2sp.org/tlog-witness on a real port, which holds to every MUST of the format."""

import base64
import re
import threading
from email.message import Message
from typing import Any

from recording.transparency import tree
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.cosignature import Cosigner
from recording.transparency.errors import BadNote
from recording.transparency.note import Verifier, open_note, split_note
from tests.audit_svc.seal.http_service import Answer, HttpService

_BODY = re.compile(r"old (0|[1-9][0-9]*)\n((?:[A-Za-z0-9+/]{43}=\n){0,63})\n(.*)\Z", re.DOTALL)


class ScriptedWitness(HttpService):
    """Knows one log, by its key."""

    def __init__(self, name: str, log: Verifier | None = None) -> None:
        super().__init__()
        self.cosigner = Cosigner.new(name)
        self.log = log
        self.size, self.root = 0, tree.EMPTY_ROOT
        self.answers: list[int] = []
        """The HTTP status of each answer."""
        self.answer: Any = None
        """Called with the body in the place of what a witness does, where it is set: status, headers, body."""
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/submit"

    @property
    def line(self) -> str:
        """Its line of a policy."""
        return f"witness {self.cosigner.name} {self.cosigner.verifier} {self.url}\n"

    def answer_to(self, path: str, headers: Message, body: bytes) -> Answer:
        with self._lock:
            known = path == "/submit/add-checkpoint"
            status, told, said = (self.answer or self.add)(body.decode()) if known else (404, {}, "")
            self.answers.append(status)
        return status, told, said.encode()

    def add(self, body: str) -> tuple[int, dict[str, str], str]:
        """add-checkpoint, by the words of the format."""
        found = _BODY.match(body)
        if not found:
            return 400, {}, ""
        old_size, note = int(found[1]), found[3]
        proof = [base64.b64decode(line) for line in found[2].split()]
        try:
            text, _ = split_note(note)
            checkpoint = Checkpoint.parse(text)
        except BadNote:
            return 400, {}, ""
        if self.log is None or checkpoint.origin != self.log.name:
            return 404, {}, ""
        try:
            open_note(note, [self.log])
        except BadNote:
            return 403, {}, ""
        if old_size > checkpoint.size:
            return 400, {}, ""
        if old_size != self.size:
            return 409, {"content-type": "text/x.tlog.size"}, f"{self.size}\n"
        if old_size == checkpoint.size and self.root != checkpoint.root:
            return 409, {}, ""
        if (old_size == 0 and proof) or not tree.is_consistent(
            self.root, old_size, checkpoint.root, checkpoint.size, proof
        ):
            return 422, {}, ""
        self.size, self.root = checkpoint.size, checkpoint.root
        return 200, {}, self.cosigner.cosign(text, 1_790_000_000)
