"""Where stops are kept for the next start: a file in the state directory, or what gateways share (SharedStops)."""

import asyncio
import fcntl
import json
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


class KeptStops(Protocol):
    """A place for stops. All of it may raise StoreUnavailable or OSError: nothing is written then."""

    async def save(self, stops: Sequence[pb.Stop], lifted: Sequence[str]) -> OSError | None:
        """Writes stops, and the ids of those that were lifted, which may be among them, beside what others wrote.

        Returns why what was written may be gone after a loss of power.
        """
        ...


class Ours(NamedTuple):
    """A stop, and how it treats what runs when it comes."""

    stop: pb.Stop
    lets_calls_end: bool


class Found(NamedTuple):
    """What gateways share."""

    in_force: tuple[Ours, ...]
    lifted: frozenset[str]
    """Of the stops that were asked for by their ids."""


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

    def load(self) -> tuple[tuple[pb.Stop, ...], list[str]]:
        """The stops in force, and the ids of those that were lifted lately."""
        return (), []

    async def save(self, stops: Sequence[pb.Stop], lifted: Sequence[str]) -> OSError | None:
        """See KeptStops."""
        return None

    def remove(self) -> None:
        """They are kept elsewhere from now on."""


class FileOfStops(NoFile):
    """The stops of a state directory, which gateways may share."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "stops.json"

    def load(self) -> tuple[tuple[pb.Stop, ...], list[str]]:
        """See NoFile.

        Raises:
            SettingsError: the file cannot be read as stops. What is stopped is then not known.
            OSError: it cannot be read at all.
        """
        return _load(self._path)

    async def save(self, stops: Sequence[pb.Stop], lifted: Sequence[str]) -> OSError | None:
        """See KeptStops; a file that cannot be read is left as it is."""
        return await asyncio.to_thread(_save, self._path, stops, lifted)

    def remove(self) -> None:
        """See NoFile."""
        self._path.unlink(missing_ok=True)


def _save(path: Path, stops: Sequence[pb.Stop], lifted: Sequence[str]) -> OSError | None:
    with path.with_suffix(".lock").open("a") as lock:  # which its closing lets go
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            others, gone = _load(path)
        except SettingsError as error:
            raise StoreUnavailable(str(error)) from error
        ended = {*lifted, *gone}
        known = {stop.id for stop in stops} | ended
        every = [*(stop for stop in stops if stop.id not in ended), *(one for one in others if one.id not in known)]
        value = {
            "version": _VERSION,
            "stops": [json_format.MessageToDict(stop, preserving_proto_field_name=True) for stop in every],
            "lifted": [*dict.fromkeys([*gone, *lifted])][-MAX_LIFTED:],
        }
        replace_file(path, json.dumps(value, indent=1).encode() + b"\n")
        try:
            sync_folder(path.parent)
        except OSError as error:
            return error
    return None


def _load(path: Path) -> tuple[tuple[pb.Stop, ...], list[str]]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return (), []
    try:
        value = json.loads(content)
        if value.keys() != {"version", "stops", "lifted"} or value["version"] != _VERSION:
            raise ValueError("it is of another version")
        stops = tuple(json_format.ParseDict(one, pb.Stop()) for one in value["stops"])
        for stop in stops:
            check_scope(stop.scope)
            if not stop.id:
                raise ValueError("a stop has no id")
        lifted = [str(one) for one in value["lifted"]]
        return tuple(stop for stop in stops if stop.id not in lifted), lifted
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it, what is stopped is not known
        raise SettingsError(
            f"{path}: cannot be read as the stops in force ({type(error).__name__}): it may be damaged, or of a newer "
            "version. Restore it, or remove it if nothing is to be stopped"
        ) from None
