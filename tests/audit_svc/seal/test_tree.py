"""The tree and its tiles, against a tree made the slow way, and notes against what Go's sumdb/note has published."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_svc.seal.files import FolderFiles
from audit_svc.seal.tiles import Tiles, TileWriter, tile_path
from recording.transparency import tree
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.errors import BadKey, BadNote
from recording.transparency.note import Signer, Verifier, open_note


def slow_root(hashes: list[bytes]) -> bytes:
    """As RFC 6962 defines it."""
    if len(hashes) <= 1:
        return hashes[0] if hashes else tree.EMPTY_ROOT
    half = 1
    while half * 2 < len(hashes):
        half *= 2
    return tree.node_hash(slow_root(hashes[:half]), slow_root(hashes[half:]))


def leaves(count: int) -> list[bytes]:
    return [tree.leaf_hash(str(n).encode()) for n in range(count)]


@pytest.mark.long
@settings(max_examples=30)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=6), st.data())
def test_a_log_written_in_any_rounds_has_the_root_and_the_proofs_of_rfc_6962(tmp_path_factory, rounds, data):
    folder = tmp_path_factory.mktemp("log")
    hashes = leaves(sum(rounds))
    size = 0
    for added in rounds:
        writer = TileWriter(FolderFiles(folder), size)  # as after a restart
        writer.append(hashes[size : size + added])
        size += added
        assert writer.root() == slow_root(hashes[:size])
    tiles = Tiles(FolderFiles(folder), size)
    assert tiles.root() == slow_root(hashes)
    index = data.draw(st.integers(0, size - 1))
    proof = tree.inclusion_proof(index, size, tiles.subtree)
    assert tree.includes(tiles.root(), size, index, hashes[index], proof)
    assert not tree.includes(tiles.root(), size, index, tree.leaf_hash(b"another"), proof)
    old = data.draw(st.integers(1, size))
    proof = tree.consistency_proof(old, size, tiles.subtree)
    assert tree.is_consistent(slow_root(hashes[:old]), old, tiles.root(), size, proof)
    if old < size:
        assert not tree.is_consistent(tree.leaf_hash(b"another"), old, tiles.root(), size, proof)


@pytest.mark.long
def test_tiles_are_where_any_client_of_the_format_looks_for_them(tmp_path: Path):
    assert tile_path(0, 1234067, 256) == "tile/0/x001/x234/067"
    assert tile_path(1, 0, 17) == "tile/1/000.p/17"
    TileWriter(FolderFiles(tmp_path), 0).append(leaves(70_000))
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {"tile/0/272", "tile/0/273.p/112", "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1"} <= found
    assert len(found) == 273 + 4


def test_a_note_of_gos_own_documentation_is_opened():
    # https://pkg.go.dev/golang.org/x/mod/sumdb/note
    verifier = Verifier.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    note = (
        "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
        "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    )
    assert open_note(note, [verifier]).startswith("If you think")
    with pytest.raises(BadNote, match="does not fit"):
        open_note(note.replace("answer", "question"), [verifier])
    with pytest.raises(BadNote, match="none of the known keys"):
        open_note(note, [Signer.new("PeterNeumann").verifier])


def test_a_key_is_what_gos_own_documentation_makes_of_it():
    signer = Signer.parse("PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")
    assert str(signer.verifier) == "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    assert str(Signer.parse(str(signer))) == str(signer)
    with pytest.raises(BadKey):
        Verifier.parse("PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=300))
def test_what_is_no_note_or_checkpoint_is_refused_with_a_sentence(text):
    verifier = Signer.new("log").verifier
    with pytest.raises(BadNote):
        Checkpoint.open(text, verifier)
