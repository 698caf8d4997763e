"""Whether the ledger is doubted, told by the one process of a state directory that watches it to all others."""

from contextlib import suppress
from pathlib import Path

from recording.locks import sync_folder
from recording.replacing import replace_file

FOLDER = "witness"
"""Below the state directory."""
DOUBTED = (
    "The tool was not run: the ledger that calls are recorded in is not what it was, and nobody has accepted that yet. "
    "Continue without tools, or try again later."
)

_DOUBT = "doubt"


class Doubts:
    """The file `doubt`: it is there while the ledger is doubted, and says why."""

    def __init__(self, state_dir: Path) -> None:
        """Opens nothing."""
        self._path = state_dir / FOLDER / _DOUBT

    def is_doubted(self) -> bool:
        """Whether the file is there."""
        return self._path.exists()

    def why(self) -> str:
        """What is doubted, for people; empty while nothing is."""
        try:
            return self._path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError):
            return "the ledger is doubted"

    def set(self, what: str) -> None:
        """Says so, synced; empty: not any more.

        Raises:
            OSError: the disk refuses it.
        """
        if what == self.why():
            return
        if what:
            replace_file(self._path, f"{what}\n".encode())
        else:
            with suppress(FileNotFoundError):
                self._path.unlink()
        sync_folder(self._path.parent)
