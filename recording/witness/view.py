"""What a producer has seen of its ledger's log: a file that is replaced as a whole, before anything is built on it."""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from recording.ids import uuid7
from recording.locks import sync_folder
from recording.log import get_logger
from recording.replacing import replace_file

log = get_logger(__name__)

VIEW = "view.json"
MAX_EVIDENCE = 100
_KNOWN_RESTORES = 64
_TOLD_ROWS = 256

Kind = Literal["log", "row", "key", "gone"]
"""Of a doubt: the log went back or is another, a row is missing or another, the key is another, the seal is gone."""


@dataclass(slots=True)
class Told:
    """Something for a control row, which has this id however often it is written."""

    kind: Kind
    what: str
    id: str = field(default_factory=lambda: str(uuid7()))
    told: bool = False


@dataclass(slots=True)
class View:
    """What was seen, and what is to be done about it."""

    key: str = ""
    """The log's verifier key: the first that was seen, or the one that a setting names, or what these led to."""
    named: str = ""
    """The one that a setting named; empty where none did."""
    note: str = ""
    """The newest checkpoint that was seen and found consistent with all before, or that a doubt began with."""
    restores: list[str] = field(default_factory=list)
    """Hashes of the log's entries about restores that were seen, in hexadecimal."""
    told_rows: list[str] = field(default_factory=list)
    """Ids of rows that were told to be others, and are not looked for any more."""
    doubt: Told | None = None
    """What is doubted and was not accepted."""
    accepted: Told | None = None
    """The last acceptance."""
    resend: bool = False
    """Whether kept rows are still to be sent again."""

    def know(self, hashes: list[str]) -> None:
        """Notes entries about restores."""
        self.restores = [*self.restores, *(each for each in hashes if each not in self.restores)][-_KNOWN_RESTORES:]

    def tell_row(self, row_id: str) -> None:
        """Notes a row that is told."""
        self.told_rows = [*self.told_rows, row_id][-_TOLD_ROWS:]


class ViewFile:
    """The file, and evidence beside it. One process writes them."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder if it is missing.

        Raises:
            OSError: it cannot be made.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._saved = ""

    def load(self) -> View:
        """The view; a new one where there is none, or where it cannot be read, which is logged.

        Raises:
            OSError: the disk cannot be read.
        """
        path = self._folder / VIEW
        try:
            read: dict[str, Any] = json.loads(path.read_bytes())
            for name in ("doubt", "accepted"):
                read[name] = None if read[name] is None else Told(**read[name])
            return View(**read)
        except FileNotFoundError:
            return View()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.error("witness.view_damaged", error=type(error).__name__, hint="what was seen before is not known")
            path.rename(path.with_name(f"damaged-{time.time_ns()}.json"))
            return View()

    def save(self, view: View) -> None:
        """Writes it, synced.

        Raises:
            OSError: the disk refuses it.
        """
        said = json.dumps(asdict(view))
        if said != self._saved:
            replace_file(self._folder / VIEW, said.encode())
            sync_folder(self._folder)
            self._saved = said

    def keep_evidence(self, key: str, seen: str, note: str, what: str) -> None:
        """Keeps two checkpoints that contradict each other. The first MAX_EVIDENCE stay.

        Raises:
            OSError: the disk refuses it.
        """
        if len(list(self._folder.glob("evidence-*.json"))) < MAX_EVIDENCE:
            said = {"what": what, "key": key, "seen": seen, "shown": note, "at_ms": time.time_ns() // 10**6}
            replace_file(self._folder / f"evidence-{uuid7()}.json", json.dumps(said).encode())
