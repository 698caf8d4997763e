"""The Merkle tree of RFC 6962, over whatever gives the hash of a whole subtree."""

import hashlib
from collections.abc import Callable, Sequence

Subtree = Callable[[int, int], bytes]
"""(height, n) to the hash of leaves n * 2**height up to, and without, (n + 1) * 2**height."""

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()


_begin_leaf = hashlib.sha256(b"\x00").copy
"""Where each leaf's hash begins: a copy of it costs less than the zero byte before a leaf."""


def leaf_hash(leaf: bytes) -> bytes:
    """Of 32 bytes."""
    hash_ = _begin_leaf()
    hash_.update(leaf)
    return hash_.digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Of two subtrees side by side."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def fold(hashes: Sequence[bytes]) -> bytes:
    """The root above subtrees side by side: all of one size, but the last, which may be smaller. At least one."""
    level, sha256 = list(hashes), hashlib.sha256
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        # a call of node_hash() for each would take a fifth longer
        paired = [sha256(b"\x01" + left + right).digest() for left, right in pairs]
        level = paired + level[2 * len(paired) :]
    return level[0]


def root(size: int, subtree: Subtree) -> bytes:
    """The root of the first size leaves."""
    return _range(0, size, subtree) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """From the leaf's sibling up to the root's child (RFC 6962, 2.1.1)."""
    proof, low, high = [], 0, size
    while high - low > 1:
        middle = low + _half(high - low)
        if index < middle:
            proof.append(_range(middle, high, subtree))
            high = middle
        else:
            proof.append(_range(low, middle, subtree))
            low = middle
    return proof[::-1]


def consistency_proof(old: int, size: int, subtree: Subtree) -> list[bytes]:
    """That the tree of size begins with the tree of old, which is at least 1 (RFC 6962, 2.1.2)."""
    proof, low, high, whole = [], 0, size, True
    while high - low > 1 and old != high:
        middle = low + _half(high - low)
        if old <= middle:
            proof.append(_range(middle, high, subtree))
            high = middle
        else:
            proof.append(_range(low, middle, subtree))
            low, whole = middle, False
    if not whole:
        proof.append(_range(low, high, subtree))
    return proof[::-1]


def includes(root_hash: bytes, size: int, index: int, leaf: bytes, proof: Sequence[bytes]) -> bool:
    """Whether a leaf's hash stands at index of a tree, by its proof (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    place, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if place & 1 or place == last:
            found = node_hash(sibling, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and found == root_hash


def is_consistent(old_root: bytes, old: int, new_root: bytes, size: int, proof: Sequence[bytes]) -> bool:
    """Whether a tree begins with an older one, by the proof (RFC 9162, 2.1.4.2)."""
    if old == 0 or old == size:
        return not proof and (old_root == EMPTY_ROOT if old == 0 else old_root == new_root)
    if old > size or not proof:
        return False
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    place, last = old - 1, size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    first = second = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root


def _half(size: int) -> int:
    """The largest power of two below size, which is at least 2."""
    return 1 << (size - 1).bit_length() - 1


def _range(low: int, high: int, subtree: Subtree) -> bytes:
    size = high - low
    if size & (size - 1) == 0:
        height = size.bit_length() - 1
        return subtree(height, low >> height)
    middle = low + _half(size)
    return node_hash(_range(low, middle, subtree), _range(middle, high, subtree))
