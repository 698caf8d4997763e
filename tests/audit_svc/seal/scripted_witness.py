"""A witness of https://c2sp.org/tlog-witness on a real port, which holds to every MUST of the format."""

import base64
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from recording.transparency import tree
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.cosignature import Cosigner
from recording.transparency.errors import BadNote
from recording.transparency.note import Verifier, open_note, split_note

_BODY = re.compile(r"old (0|[1-9][0-9]*)\n((?:[A-Za-z0-9+/]{43}=\n){0,63})\n(.*)\Z", re.DOTALL)


class ScriptedWitness:
    """Knows one log, by its key."""

    def __init__(self, name: str, log: Verifier | None = None) -> None:
        self.cosigner = Cosigner.new(name)
        self.log = log
        self.size, self.root = 0, tree.EMPTY_ROOT
        self.answers: list[int] = []
        """The HTTP status of each answer."""
        self.answer: Any = None
        """Called with the body in the place of what a witness does, where it is set: status, headers, body."""
        self.port = 0
        self._server: ThreadingHTTPServer | None = None
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/submit"

    @property
    def line(self) -> str:
        """Its line of a policy."""
        return f"witness {self.cosigner.name} {self.cosigner.verifier} {self.url}\n"

    def start(self) -> None:
        witness = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                with witness._lock:
                    known = self.path == "/submit/add-checkpoint"
                    status, headers, said = (witness.answer or witness.add)(body) if known else (404, {}, "")
                    witness.answers.append(status)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(said.encode())))
                self.end_headers()
                self.wfile.write(said.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

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
