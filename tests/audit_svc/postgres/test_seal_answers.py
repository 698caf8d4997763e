"""What is asked of a log in tables: proofs, checkpoints, tiles, cosignatures and time-stamps."""

from contextlib import closing, suppress
from pathlib import Path

import pytest

from audit_svc.errors import Damaged, StoreUnavailable
from audit_svc.seal import leaf
from audit_svc.seal.copying import copy_log
from audit_svc.seal.errors import NotSealed
from audit_svc.seal.folder import CHECKPOINT, own_verifier
from audit_svc.seal.outside.cosigned import Cosigned
from audit_svc.seal.outside.policy import read_policy
from audit_svc.seal.outside.quorum import roots_of
from audit_svc.seal.outside.stamps import Stamps, read_authorities, request_for
from audit_svc.seal.proving import prove, rows_of
from audit_svc.seal.reader import SealReader
from audit_svc.seal.tiles import Tiles
from audit_svc.sqlite.seal.folder_log import FolderLog
from recording.transparency import tree
from recording.transparency.cosignature import Cosigner
from recording.transparency.note import split_note
from tests.audit_svc.postgres.sealed import PostgresSeal, Record
from tests.audit_svc.seal.conftest import rows
from tests.audit_svc.seal.scripted_authority import Certificates, ScriptedAuthority

pytestmark = pytest.mark.postgres


def test_a_row_is_proven(filled: PostgresSeal, database: Path):
    filled.run()
    with closing(filled.place.open_ledger()) as ledger, closing(filled.place.open_log()) as log, ledger.moment():
        id_ = ledger.row(leaf.BY_NAME["tool_call"], 9)["id"]
        verifier = own_verifier(log)
        note = (log.read("checkpoint") or b"").decode()
        found = rows_of(ledger, [leaf.BY_NAME["tool_call"]], id_, None)
        assert prove(log, verifier, [note], found).check(verifier).size == 71
        assert not list(Cosigned(log).notes([]))


async def test_the_service_answers_of_a_log_in_tables(filled: PostgresSeal, record: Record, tmp_path: Path):
    """What ProofService asks for: checkpoints, consistency, a row's proof, tiles, and what witnesses have signed."""
    witness = Cosigner.new("witness.example.com/w")
    policy = read_policy(f"witness w {witness.verifier}\n")
    reader = SealReader(filled.place.open_ledger, filled.place.open_log(), lambda: policy)
    try:
        with pytest.raises(NotSealed):
            await reader.ask(SealReader.head)
        filled.run()
        old = await reader.ask(SealReader.head)
        text, (own, *_) = split_note(old.note)
        await reader.ask(lambda seal: seal.add_cosignature(f"{text}\n{own.line}{witness.cosign(text, 7)}"))
        record(**rows(20), last=7)
        filled.copy()
        filled.run()
        head = await reader.ask(SealReader.head)
        hashes = await reader.ask(lambda seal: seal.consistency(head, old.checkpoint.size))
        assert tree.is_consistent(
            old.checkpoint.root, old.checkpoint.size, head.checkpoint.root, head.checkpoint.size, hashes
        )
        assert await reader.ask(lambda seal: seal.seen_by(policy[0].key)) == old.checkpoint.size
        with closing(filled.place.open_ledger()) as ledger:
            first, last = (str(ledger.row(leaf.BY_NAME["tool_call"], at)["id"]) for at in (9, 60))
        for id_, size in ((first, old.checkpoint.size), (last, head.checkpoint.size)):
            proof = await reader.ask(lambda seal, id_=id_: seal.proof([leaf.BY_NAME["tool_call"]], id_, None))  # type: ignore[misc]
            assert proof.check(head.verifier).size == size, (
                "of the checkpoint that the witness signed, where it has the row"
            )
        path = f"tile/0/000.p/{head.checkpoint.size}"
        assert len(await reader.ask(lambda seal: seal.tile(path))) == 32 * head.checkpoint.size
        filled.change("UPDATE tool_call_log SET tool_name = 'x' WHERE position = 9")
        with pytest.raises(Damaged, match="is not what was sealed"):
            await reader.ask(lambda seal: seal.proof([leaf.BY_NAME["tool_call"]], first, None))
        # a connection that the server ends is opened again
        filled.change(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        with suppress(StoreUnavailable):
            await reader.ask(SealReader.head)
        assert (await reader.ask(SealReader.head)).checkpoint == head.checkpoint
    finally:
        reader.close()


def test_time_stamps_are_kept_in_tables_and_checked_from_there(filled: PostgresSeal, tmp_path: Path):
    """OpenSSL's own authority has stamped the log, which goes to a folder and is checked from there too."""
    filled.run()
    authority = ScriptedAuthority(tmp_path / "authority", Certificates(tmp_path / "certificates"))
    log = filled.place.open_log()
    note = log.read(CHECKPOINT)
    assert note
    Stamps(log).keep(note, authority.stamp(request_for(note).as_bytes()))
    newest = Stamps(log).newest()
    assert newest is not None
    assert newest[0] == filled.run()
    folder = FolderLog(tmp_path / "copied.seal")
    copy_log(log, folder)
    for kept in (log, folder):
        root_of = roots_of(Tiles(kept, newest[0]))
        found = Stamps(kept).look(read_authorities(authority.certificates.ca), root_of)
        assert found.problems == []
        assert [(stamp.leaves, stamp.at) for stamp in found.stamps] == [newest]
    log.close()
