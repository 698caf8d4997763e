"""A log's files in a folder, as any file server can serve it."""

import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from audit_svc.seal.errors import BadLog
from recording import replacing
from recording.locks import sync_folder

SYNCED_AT_ONCE = 16
"""Files."""


class FolderFiles:
    """Files below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, path: str) -> bytes | None:
        """See log.Files."""
        try:
            return (self.folder / path).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BadLog(f"{self.folder / path} cannot be read ({error.strerror})") from None

    def read_below(self, folder: str) -> dict[str, bytes]:
        """See log.Files."""
        found: dict[str, bytes] = {}
        for path in sorted((self.folder / folder).glob("*")):
            with suppress(OSError):
                if path.suffix != ".draft":
                    found[path.name] = path.read_bytes()
        return found

    def paths(self, folder: str) -> list[str]:
        """See log.Files."""
        found = sorted(path for path in (self.folder / folder).rglob("*") if path.is_file())
        return [str(path.relative_to(self.folder)) for path in found if path.suffix != ".draft"]

    def write(self, files: Mapping[str, bytes]) -> None:
        """See log.Files."""
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        paths = {self.folder / path: data for path, data in files.items()}
        changed = {path.parent for path in paths}
        for folder in sorted({parent for path in paths for parent in path.parents if self.folder in parent.parents}):
            if not folder.exists():
                folder.mkdir(mode=0o755)
                changed.add(folder.parent)
        # files that are synced at once share the disk's commits: one by one, 64 tiles took seven times as long
        with ThreadPoolExecutor(SYNCED_AT_ONCE) as pool:
            for written in [pool.submit(replacing.replace_file, *file, mode=0o644) for file in paths.items()]:
                written.result()
        for folder in changed:
            sync_folder(folder)

    def remove(self, path: str) -> None:
        """See log.Files."""
        if (self.folder / path).is_file():
            (self.folder / path).unlink(missing_ok=True)
        else:
            shutil.rmtree(self.folder / path, ignore_errors=True)

    def place(self, path: str = "") -> str:
        """See log.Files."""
        return str(self.folder / path)


def replace_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Writes a file whole, or not at all, that others may read; its name lasts when this returns."""
    replacing.replace_file(path, data, mode=mode)
    sync_folder(path.parent)
