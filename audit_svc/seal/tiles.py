"""A folder of tiles and a checkpoint, as any file server can serve it (https://c2sp.org/tlog-tiles)."""

import shutil
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from audit_svc.seal.errors import BadLog
from recording import replacing
from recording.locks import sync_folder
from recording.transparency import tree
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.note import Signer
from recording.transparency.tree import HASH_BYTES

WIDTH = 256
"""Hashes of a full tile."""
_HEIGHT = 8
_CACHED_TILES = 64
SYNCED_AT_ONCE = 16
"""Tiles."""


class Tiles:
    """The hashes of a log's first size leaves, read from its folder."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self.size = size
        self._cached: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    def tile(self, level: int, n: int) -> bytes:
        """The hashes of a tile, side by side. Raises BadLog: it is missing, or is not as long as it must be."""
        key = level, n
        if key in self._cached:
            self._cached.move_to_end(key)
            return self._cached[key]
        width = min((self.size >> _HEIGHT * level) - n * WIDTH, WIDTH)
        if width <= 0:
            raise BadLog(f"the log of {self.size} leaves has no tile {tile_path(level, n, 0)}")
        found = self._read(level, n, width)
        self._cached[key] = found
        if len(self._cached) > _CACHED_TILES:
            self._cached.popitem(last=False)
        return found

    def _read(self, level: int, n: int, width: int) -> bytes:
        for said in (width, WIDTH):  # in this order: a partial tile goes once the full one is there
            path = self._folder / tile_path(level, n, said)
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise BadLog(f"{path} cannot be read ({error.strerror})") from None
            if len(data) != said * HASH_BYTES:
                raise BadLog(f"{path} has {len(data)} bytes, and not {said * HASH_BYTES}")
            return data[: width * HASH_BYTES]
        raise BadLog(f"{self._folder / tile_path(level, n, width)} is missing")

    def subtree(self, height: int, n: int) -> bytes:
        """The hash of leaves n * 2**height up to, and without, (n + 1) * 2**height. Raises BadLog."""
        level, rest = divmod(height, _HEIGHT)
        first = n << rest
        tile = self.tile(level, first // WIDTH)
        begin = first % WIDTH
        hashes = tile[begin * HASH_BYTES : (begin + (1 << rest)) * HASH_BYTES]
        return tree.fold(split(hashes))

    def leaf(self, index: int) -> bytes:
        """A leaf's hash. Raises BadLog."""
        return self.subtree(0, index)

    def root(self, size: int | None = None) -> bytes:
        """The root of the first size leaves; of all by default. Raises BadLog."""
        return tree.root(self.size if size is None else size, self.subtree)


class TileWriter:
    """Appends to a log. One process at a time has one."""

    def __init__(self, folder: Path, size: int) -> None:
        """Goes on behind the first size leaves; what is there of later ones was never signed, and is overwritten.

        Raises BadLog: a tile of them cannot be read.
        """
        self._folder = folder
        self.size = size
        read = Tiles(folder, size)
        self._partial: list[list[bytes]] = []
        """Of each level the hashes of its last tile, which is not full."""
        level = 0
        while size >> _HEIGHT * level:
            many = size >> _HEIGHT * level
            self._partial.append(split(read.tile(level, many // WIDTH)) if many % WIDTH else [])
            level += 1

    def append(self, leaves: Sequence[bytes]) -> None:
        """Writes the tiles of leaves' hashes, synced. No checkpoint tells of them yet."""
        files: dict[Path, bytes] = {}
        added: Sequence[bytes] = leaves
        level = 0
        while added:
            if level == len(self._partial):
                self._partial.append([])
            done = (self.size >> _HEIGHT * level) // WIDTH
            waiting = [*self._partial[level], *added]
            full = len(waiting) // WIDTH
            above = []
            for i in range(full):
                hashes = waiting[i * WIDTH : (i + 1) * WIDTH]
                files[self._folder / tile_path(level, done + i, WIDTH)] = b"".join(hashes)
                above.append(tree.fold(hashes))
            self._partial[level] = waiting[full * WIDTH :]
            if rest := self._partial[level]:
                files[self._folder / tile_path(level, done + full, len(rest))] = b"".join(rest)
            added = above
            level += 1
        self._write(files)
        self.size += len(leaves)

    def root(self) -> bytes:
        """The root of all leaves."""
        found: list[bytes] = []
        for hashes in self._partial:
            if together := [*hashes, *found]:
                found = [tree.fold(together)]
        return found[0] if found else tree.EMPTY_ROOT

    def sign(self, signer: Signer, *others: Signer) -> Checkpoint:
        """Writes the checkpoint of all leaves, after which the partial tiles of full ones go.

        others: further keys of the same name that sign it.
        """
        checkpoint = Checkpoint(signer.name, self.size, self.root())
        note = signer.sign(str(checkpoint)) + "".join(other.line(str(checkpoint)) for other in others)
        replace_file(self._folder / "checkpoint", note.encode())
        return checkpoint

    def tidy(self, before: int) -> None:
        """Removes the partial tiles of tiles that became full since the log had before leaves."""
        for level in range(len(self._partial)):
            was, now = before >> _HEIGHT * level, self.size >> _HEIGHT * level
            for n in range(was // WIDTH, now // WIDTH):
                shutil.rmtree(self._folder / f"{tile_path(level, n, WIDTH)}.p", ignore_errors=True)

    def _write(self, files: Mapping[Path, bytes]) -> None:
        changed = {path.parent for path in files}
        for folder in sorted({parent for path in files for parent in path.parents if self._folder in parent.parents}):
            if not folder.exists():
                folder.mkdir(mode=0o755)
                changed.add(folder.parent)
        # files that are synced at once share the disk's commits: one by one, 64 tiles took seven times as long
        with ThreadPoolExecutor(SYNCED_AT_ONCE) as pool:
            for written in [pool.submit(replacing.replace_file, *file, mode=0o644) for file in files.items()]:
                written.result()
        for folder in changed:
            sync_folder(folder)


def tile_path(level: int, n: int, width: int) -> str:
    """Where a tile is, below the log's folder. width: of its hashes."""
    parts = [f"{n % 1000:03}"]
    while n := n // 1000:
        parts.insert(0, f"x{n % 1000:03}")
    return f"tile/{level}/{'/'.join(parts)}" + (f".p/{width}" if 0 < width < WIDTH else "")


def split(data: bytes) -> list[bytes]:
    """Hashes that stand side by side, one by one."""
    return [data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)]


def replace_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Writes a file whole, or not at all, that others may read; its name lasts when this returns."""
    replacing.replace_file(path, data, mode=mode)
    sync_folder(path.parent)
