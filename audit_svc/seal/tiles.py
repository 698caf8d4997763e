"""Tiles and a checkpoint, as any file server can serve them (https://c2sp.org/tlog-tiles)."""

from collections import OrderedDict
from collections.abc import Sequence

from audit_svc.seal.errors import BadLog
from audit_svc.seal.folder import CHECKPOINT
from audit_svc.seal.log import Files
from recording.transparency import tree
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.note import Signer
from recording.transparency.tree import HASH_BYTES

WIDTH = 256
"""Hashes of a full tile."""
_HEIGHT = 8
_CACHED_TILES = 64


class Tiles:
    """The hashes of a log's first size leaves, read from its files."""

    def __init__(self, files: Files, size: int) -> None:
        self._files = files
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
            path = tile_path(level, n, said)
            data = self._files.read(path)
            if data is None:
                continue
            if len(data) != said * HASH_BYTES:
                raise BadLog(f"{self._files.place(path)} has {len(data)} bytes, and not {said * HASH_BYTES}")
            return data[: width * HASH_BYTES]
        raise BadLog(f"{self._files.place(tile_path(level, n, width))} is missing")

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

    def __init__(self, files: Files, size: int) -> None:
        """Goes on behind the first size leaves; what is there of later ones was never signed, and is overwritten.

        Raises BadLog: a tile of them cannot be read.
        """
        self._files = files
        self.size = size
        read = Tiles(files, size)
        self._partial: list[list[bytes]] = []
        """Of each level the hashes of its last tile, which is not full."""
        level = 0
        while size >> _HEIGHT * level:
            many = size >> _HEIGHT * level
            self._partial.append(split(read.tile(level, many // WIDTH)) if many % WIDTH else [])
            level += 1

    def append(self, leaves: Sequence[bytes]) -> None:
        """Writes the tiles of leaves' hashes, synced. No checkpoint tells of them yet."""
        files: dict[str, bytes] = {}
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
                files[tile_path(level, done + i, WIDTH)] = b"".join(hashes)
                above.append(tree.fold(hashes))
            self._partial[level] = waiting[full * WIDTH :]
            if rest := self._partial[level]:
                files[tile_path(level, done + full, len(rest))] = b"".join(rest)
            added = above
            level += 1
        self._files.write(files)
        self.size += len(leaves)

    def root(self) -> bytes:
        """The root of all leaves."""
        found: list[bytes] = []
        for hashes in self._partial:
            if together := [*hashes, *found]:
                found = [tree.fold(together)]
        return found[0] if found else tree.EMPTY_ROOT

    def sign(self, signer: Signer, *others: Signer) -> bytes:
        """Writes the checkpoint of all leaves, and returns it; after that the partial tiles of full ones may go.

        others: further keys of the same name that sign it.
        """
        checkpoint = Checkpoint(signer.name, self.size, self.root())
        note = signer.sign(str(checkpoint)) + "".join(other.line(str(checkpoint)) for other in others)
        self._files.write({CHECKPOINT: note.encode()})
        return note.encode()

    def tidy(self, before: int) -> None:
        """Removes the partial tiles of tiles that became full since the log had before leaves."""
        for level in range(len(self._partial)):
            was, now = before >> _HEIGHT * level, self.size >> _HEIGHT * level
            for n in range(was // WIDTH, now // WIDTH):
                self._files.remove(f"{tile_path(level, n, WIDTH)}.p")


def tile_path(level: int, n: int, width: int) -> str:
    """Where a tile is, below the log's folder. width: of its hashes."""
    parts = [f"{n % 1000:03}"]
    while n := n // 1000:
        parts.insert(0, f"x{n % 1000:03}")
    return f"tile/{level}/{'/'.join(parts)}" + (f".p/{width}" if 0 < width < WIDTH else "")


def split(data: bytes) -> list[bytes]:
    """Hashes that stand side by side, one by one."""
    return [data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)]
