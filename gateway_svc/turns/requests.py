"""The requests that name themselves by a request_id: each runs once, also when its gateway ends in between.

They are lines of a file in the state directory: one is written and synced before its turn runs, and another when the
turn has ended. Each gateway has a file of its own there, which it locks; the next one takes over those of gateways that
are gone. A clock decides nothing: after a restart all are kept for another hour.
"""

import asyncio
import base64
import hashlib
import json
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog
from google.rpc import error_details_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.errors import AlreadyExists, InvalidRequest, Overloaded, StoreUnavailable, storing
from gateway_svc.turns.kept import KEEP_SECONDS, KeptTurn
from recording.framing import append_whole
from recording.locks import lock_file, sync_folder

MAX_LENGTH = 128
MAX_REQUESTS = 250_000
"""How many are remembered. Beyond it new ones are refused: to forget one would run it twice."""

_NAMES = 100
"""How many names are tried for a new file, while others start on the same folder."""

_LINES_FOR_ROOM = 10_000
"""A file is written anew when it has so many lines more than it needs."""

_FIELDS = ("caller", "request_id", "digest", "session_id", "turn_id", "accepted_ms")

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Request:
    """A request that began a turn."""

    caller: str
    request_id: str
    digest: str
    """Of the request's content."""
    session_id: str
    turn_id: str
    accepted_ms: int
    ended: float = 0.0
    """When its turn ended, by time.monotonic(); a restart of the gateway counts as an end."""
    finished: bytes | None = None
    """The turn's last event, a TurnEvent without what others said; None if it has none."""

    @property
    def key(self) -> tuple[str, str]:
        """Whose request it is, and its name."""
        return self.caller, self.request_id

    def lines(self) -> Iterator[dict[str, str | int]]:
        """What the file says of it."""
        yield {name: getattr(self, name) for name in _FIELDS}
        if self.finished is not None:
            yield {"turn_id": self.turn_id, "finished": base64.b64encode(self.finished).decode()}


class Requests:
    """The requests that this gateway remembers."""

    def __init__(self, state_dir: Path) -> None:
        """Takes over the requests of gateways with this state_dir that are gone.

        Raises:
            OSError: state_dir cannot be used.
        """
        self._folder = state_dir / "requests"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._running: dict[tuple[str, str], Request] = {}
        self._ended = OrderedDict[tuple[str, str], Request]()
        self._by_turn: dict[str, Request] = {}
        """All of them, by the ids of their turns."""
        self._syncing = asyncio.Lock()
        self._file = threading.Lock()
        left: list[tuple[Path, int]] = []
        for path in sorted(self._folder.glob("*.jsonl")):
            if (lock := lock_file(path)) is not None:
                left.append((path, lock))
                self._load(path)
        self._name, self._fd, self._lines = self._write_anew()
        for path, lock in left:
            path.unlink(missing_ok=True)
            os.close(lock)

    def __len__(self) -> int:
        return len(self._running) + len(self._ended)

    def knows(self, caller: str, request_id: str) -> bool:
        """Whether a request of this caller and name is remembered."""
        self._forget_old()
        return (caller, request_id) in self._running or (caller, request_id) in self._ended

    def find(self, caller: str, request: pb.RunTurnRequest) -> Request | None:
        """The earlier request that this one repeats; None if it is the first.

        Raises:
            InvalidRequest: its request_id cannot be one.
            AlreadyExists: the request_id stands for another request of the caller.
            Overloaded: no more can be remembered.
        """
        _check(request.request_id)
        self._forget_old()
        key = caller, request.request_id
        known = self._running.get(key) or self._ended.get(key)
        if known is None:
            if len(self) >= MAX_REQUESTS:
                raise Overloaded(f"{len(self)} requests of the last hour are remembered: come again later")
            return None
        if known.digest != digest_of(request):
            raise AlreadyExists(
                "request_id stands for another request already: take a new one for each", "request", request.request_id
            )
        return known

    def of_turn(self, turn_id: str) -> Request | None:
        """The request that began a turn; None if it had no request_id, or is forgotten."""
        self._forget_old()
        return self._by_turn.get(turn_id)

    def begin(self, caller: str, request: pb.RunTurnRequest, turn: KeptTurn) -> Request:
        """Remembers a request that begins a turn."""
        known = Request(caller, request.request_id, digest_of(request), turn.session_id, turn.turn_id, turn.accepted_ms)
        self._running[known.key] = self._by_turn[turn.turn_id] = known
        return known

    async def write(self, request: Request) -> None:
        """Returns when the request would be known after a crash.

        Raises:
            StoreUnavailable: it cannot be written.
        """
        try:
            async with self._syncing:
                with storing():
                    await asyncio.to_thread(self._append, request)
        except StoreUnavailable:
            self.forget(request)
            raise

    def forget(self, request: Request) -> None:
        """Forgets a request of which nothing runs: it may be tried again."""
        if self._by_turn.pop(request.turn_id, None) is not None:
            del self._running[request.key]

    def end(self, turn: KeptTurn, finished: pb.TurnEvent) -> Request | None:
        """The turn has ended. Returns its request; does nothing, and returns None, if that has no request_id."""
        known = self._by_turn.get(turn.turn_id)
        if known is None:
            return None
        known.ended, known.finished = time.monotonic(), _without_words(finished).SerializeToString()
        self._ended[known.key] = self._running.pop(known.key)
        try:
            # A line in one write, not synced: after a power cut the turn counts as interrupted.
            self._put(list(known.lines())[1:])
        except OSError as error:
            log.warning("turn.end_unsaved", reason=str(error))
        return known

    def close(self) -> None:
        """Closes the file."""
        os.close(self._fd)

    def _append(self, request: Request) -> None:
        with self._file:
            if self._lines > 2 * len(self) + _LINES_FOR_ROOM:
                old, fd = self._name, self._fd
                self._name, self._fd, self._lines = self._write_anew()
                old.unlink(missing_ok=True)
                os.close(fd)
        self._put(list(request.lines())[:1])
        os.fdatasync(self._fd)

    def _put(self, lines: list[dict[str, str | int]]) -> None:
        with self._file:
            _write(self._fd, lines)
            self._lines += len(lines)

    def _write_anew(self) -> tuple[Path, int, int]:
        """A new locked file with all that is known: its name, its descriptor, its lines."""
        for _ in range(_NAMES):
            name = self._folder / f"{secrets.token_hex(16)}.jsonl"
            if (fd := lock_file(name)) is not None:
                break  # else a gateway that starts too has taken it for one that was left, before it was locked
        else:
            raise FileNotFoundError(f"no file in {self._folder} can be made and locked")
        lines = [line for request in [*self._ended.values(), *self._running.values()] for line in request.lines()]
        try:
            _write(fd, lines)
            os.fsync(fd)
            sync_folder(self._folder)
        except OSError:
            name.unlink()
            os.close(fd)
            raise
        return name, fd, len(lines)

    def _load(self, path: Path) -> None:
        now, torn = time.monotonic(), 0
        for line in path.read_bytes().splitlines():
            try:
                value = json.loads(line)
                if "finished" in value:
                    self._by_turn[value["turn_id"]].finished = base64.b64decode(value["finished"])
                else:
                    request = Request(**{name: value[name] for name in _FIELDS}, ended=now)
                    self._ended[request.key] = self._by_turn[request.turn_id] = request
            except (ValueError, KeyError, TypeError):
                torn += 1  # the end of a file that a crash has cut: its turn had not begun
        if torn:
            log.warning("requests.lines_torn", lines=torn)

    def _forget_old(self) -> None:
        longest_ago = time.monotonic() - KEEP_SECONDS
        while self._ended:
            request = next(iter(self._ended.values()))
            if request.ended > longest_ago:
                return
            del self._ended[request.key]
            self._by_turn.pop(request.turn_id, None)


def _without_words(finished: pb.TurnEvent) -> pb.TurnEvent:
    """The event as it may stand on disk: an error's text may quote a model server, so its code and reason remain."""
    kept = pb.TurnEvent()
    kept.CopyFrom(finished)
    if kept.turn_finished.HasField("error"):
        error, info = kept.turn_finished.error, error_details_pb2.ErrorInfo()
        reasons = [info.reason for detail in error.details if detail.Unpack(info)]
        error.message = "the turn failed; what was said of it is not kept any more"
        del error.details[:]
        for reason in reasons:
            error.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain=info.domain))
    return kept


def _write(fd: int, lines: list[dict[str, str | int]]) -> None:
    append_whole(fd, b"".join(json.dumps(line).encode() + b"\n" for line in lines))


def digest_of(request: pb.RunTurnRequest) -> str:
    """What tells a request from others of its request_id: a hexadecimal SHA-256 of the rest of it."""
    content = pb.RunTurnRequest()
    content.CopyFrom(request)
    content.ClearField("request_id")
    return hashlib.sha256(content.SerializeToString(deterministic=True)).hexdigest()


def _check(request_id: str) -> None:
    if len(request_id) > MAX_LENGTH:
        raise InvalidRequest(f"request_id has more than {MAX_LENGTH} characters", "request_id")
    if not request_id.isprintable():
        raise InvalidRequest("request_id has a character that cannot be printed", "request_id")
