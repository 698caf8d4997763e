"""Where stops are kept for the next start: a file in the state directory, or what gateways share (SharedStops)."""

import asyncio
import fcntl
import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from google.protobuf import json_format
from onrecord.gateway.v1 import control_pb2 as pb

from gateway_svc.errors import SettingsError, StoreUnavailable
from gateway_svc.stopping.stop import check_scope
from recording.locks import sync_folder
from recording.replacing import replace_file

MAX_LIFTED = 1000
"""How many of the stops that were lifted are remembered, so that a Resume may be tried again."""
_VERSION = 1
_KEYS = {"version", "stops", "let_calls_end", "lifted"}
_Version = tuple[int, int, int] | None
"""Which content a file has: another writer's has another. None where there is no file."""


class Ours(NamedTuple):
    """A stop, and how it treats what runs when it comes."""

    stop: pb.Stop
    lets_calls_end: bool


class Found(NamedTuple):
    """What gateways share."""

    in_force: tuple[Ours, ...] = ()
    lifted: Collection[str] = ()
    """The ids of stops that were lifted: of those that were asked for, or the last, the newest at the end."""


class KeptStops(Protocol):
    """A place for stops. All of it may raise StoreUnavailable or OSError: nothing is written then."""

    async def save(self, stops: Sequence[Ours], lifted: Sequence[str]) -> OSError | None:
        """Writes stops, and the ids of those that were lifted, which may be among them, beside what others wrote.

        Returns why what was written may be gone after a loss of power.
        """
        ...


class SharedStops(KeptStops, Protocol):
    """A place that several gateways look into."""

    changed: asyncio.Event
    """Is set when somebody may have written there."""

    async def exchange(self, untold: Sequence[Ours], ids: Collection[str]) -> Found:
        """Writes stops that it may not have yet, and returns those in force, and which of ids were lifted.

        Raises:
            StoreUnavailable: it cannot be used now, or has a stop that cannot be read.
        """
        ...


class NoFile:
    """Keeps nothing: stops end with the process."""

    is_shared = False
    """Whether others may write there."""

    def load(self) -> Found:
        """The stops in force, and those that were lifted lately."""
        return Found()

    async def has_changed(self) -> bool:
        """Whether somebody has written there since it was read.

        Raises:
            OSError: that cannot be known.
        """
        return False

    async def look(self) -> Found:
        """What load() finds; nothing if it has not changed.

        Raises:
            StoreUnavailable: it cannot be read as stops.
            OSError: it cannot be read at all.
        """
        return Found()

    async def save(self, stops: Sequence[Ours], lifted: Sequence[str]) -> OSError | None:
        """See KeptStops."""
        return None

    def remove(self) -> None:
        """They are kept elsewhere from now on."""


class FileOfStops(NoFile):
    """The stops of a state directory, which gateways may share."""

    is_shared = True

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "stops.json"
        self._seen: _Version = None

    def load(self) -> Found:
        """See NoFile.

        Raises:
            SettingsError: the file cannot be read as stops. What is stopped is then not known.
            OSError: it cannot be read at all.
        """
        self._seen, found = _load(self._path)
        return found

    async def has_changed(self) -> bool:
        """See NoFile."""
        try:
            found = _version(await asyncio.to_thread(os.stat, self._path))
        except FileNotFoundError:
            found = None
        return found != self._seen

    async def look(self) -> Found:
        """See NoFile."""
        if not await self.has_changed():
            return Found()
        try:
            return await asyncio.to_thread(self.load)
        except SettingsError as error:
            raise StoreUnavailable(str(error)) from error

    async def save(self, stops: Sequence[Ours], lifted: Sequence[str]) -> OSError | None:
        """See KeptStops; a file that cannot be read is left as it is."""
        return await asyncio.to_thread(_save, self._path, stops, lifted)

    def remove(self) -> None:
        """See NoFile."""
        self._path.unlink(missing_ok=True)


def _version(file: os.stat_result) -> _Version:
    return file.st_ino, file.st_mtime_ns, file.st_size


def _save(path: Path, stops: Sequence[Ours], lifted: Sequence[str]) -> OSError | None:
    with path.with_suffix(".lock").open("ab") as lock:  # which its closing lets go
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            others, gone = _load(path)[1]
        except SettingsError as error:
            raise StoreUnavailable(str(error)) from error
        ended = {*lifted, *gone}
        known = {ours.stop.id for ours in stops}
        every = [*stops, *(one for one in others if one.stop.id not in known)]
        every = [one for one in every if one.stop.id not in ended]
        value: dict[str, object] = {
            "version": _VERSION,
            "stops": [json_format.MessageToDict(stop, preserving_proto_field_name=True) for stop, _ in every],
            "lifted": [*dict.fromkeys([*gone, *lifted])][-MAX_LIFTED:],
        }
        if let_end := [stop.id for stop, lets_calls_end in every if lets_calls_end]:
            value["let_calls_end"] = let_end
        replace_file(path, json.dumps(value, indent=1).encode() + b"\n")
        try:
            sync_folder(path.parent)
        except OSError as error:
            return error
    return None


def _load(path: Path) -> tuple[_Version, Found]:
    try:
        with path.open("rb") as file:
            version, content = _version(os.fstat(file.fileno())), file.read()
    except FileNotFoundError:
        return None, Found()
    try:
        value = json.loads(content)
        if {"let_calls_end", *value} != _KEYS or value["version"] != _VERSION:
            raise ValueError("it is of another version")
        stops = tuple(json_format.ParseDict(one, pb.Stop()) for one in value["stops"])
        for stop in stops:
            check_scope(stop.scope)
            if not stop.id:
                raise ValueError("a stop has no id")
        lifted, let_end = [str(one) for one in value["lifted"]], value.get("let_calls_end", ())
        in_force = tuple(Ours(stop, stop.id in let_end) for stop in stops if stop.id not in lifted)
        return version, Found(in_force, lifted)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it, what is stopped is not known
        raise SettingsError(
            f"{path}: cannot be read as the stops in force ({type(error).__name__}): it may be damaged, or of a newer "
            "version. Restore it, or remove it if nothing is to be stopped"
        ) from None
