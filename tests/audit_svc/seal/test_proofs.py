"""onrecord.audit.v1.ProofService over a real port, on a ledger with a real seal; nothing that it says is believed."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from onrecord.audit.v1 import administration_pb2, audit_pb2, proof_pb2, questions_pb2

from audit_svc.seal.outside.policy import BadLine, read_policy
from audit_svc.seal.reader import SealReader
from audit_svc.seal.texts import check_texts
from audit_svc.seal.tiles import tile_path
from audit_svc.services import rules
from audit_svc.sqlite.store import SqliteLedger
from recording.channel.watched import Watched
from recording.rows import control_row
from recording.transparency import tree
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.cosignature import Cosigner, cosignatures
from recording.transparency.note import Signer, Verifier, split_note
from recording.transparency.proof import Proof
from service_kit.access.interceptor import AccessInterceptor
from service_kit.access.roles import Role, load_callers, make_token
from tests.audit_svc.empty import write_empty
from tests.audit_svc.samples import audit_row, cost_row, record_request, request, session_row
from tests.audit_svc.seal.conftest import Seal
from tests.audit_svc.serving import serving
from tests.audit_svc.stubs import LedgerStub

ORIGIN = "ledger.example.com/test"
WITNESSES = (Cosigner.new("gateway-a.example.com"), Cosigner.new("gateway-b.example.com"))
POLICY = "# who watches\nquorum none\n\n" + "".join(f"witness {each.name} {each.verifier}\n" for each in WITNESSES)
TOOL_CALL = audit_pb2.ROW_KIND_TOOL_CALL
CALLERS = {
    "gateway-a": Role.PRODUCER,
    "gateway-b": Role.PRODUCER,
    "ada": Role.READER,
    "root": Role.ADMIN,
    "eve": Role.APPROVER,
}


class World:
    """A ledger's services behind a port, and its seal, which a test lets go on by itself."""

    def __init__(self, stub: Any, seal: Seal, tokens: dict[str, str]) -> None:
        self.stub, self.seal, self._tokens = stub, seal, tokens

    async def call(self, name: str, rpc: str, request: Any) -> Any:
        metadata = (("authorization", f"Bearer {self._tokens[name]}"),)
        return await getattr(self.stub, rpc)(request, metadata=metadata, timeout=30)

    def token(self, name: str) -> str:
        return self._tokens[name]

    async def refused(self, name: str, rpc: str, request: Any) -> tuple[str, str, bool]:
        """The status of a call that must fail, its reason, and whether it says when to try again."""
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await self.call(name, rpc, request)
        call: Any = error.value
        told: Any = rpc_status.from_call(call)
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        assert told.details[0].Unpack(info)
        return error.value.code().name, info.reason, any(detail.Unpack(retry) for detail in told.details)

    async def record(self, count: int, name: str = "gateway-a", sequence: int = 1) -> list[str]:
        sent = [audit_row() for _ in range(count)]
        await self.call(name, "RecordBatch", request(*sent, producer_id=name, first=sequence, last=sequence + count))
        return [row.id for row in sent]

    async def checkpoint(self, old_size: int = 0, name: str = "gateway-a") -> tuple[Checkpoint, Any]:
        """The newest checkpoint, verified, and the whole answer."""
        answer = await self.call(name, "GetCheckpoint", proof_pb2.GetCheckpointRequest(old_size=old_size))
        return Checkpoint.open(answer.note, self.key), answer

    async def prove(self, id_: str, name: str = "ada", kind: Any = TOOL_CALL, **row: str) -> tuple[Proof, Any]:
        answer = await self.call(name, "GetProof", proof(id_, kind, **row))
        made = Proof.parse(answer.proof)
        made.check(self.key)
        assert answer.leaf.encode() == made.leaf
        return made, json.loads(answer.leaf)

    @property
    def key(self) -> Verifier:
        """The log's, from its folder, where a real witness has it from elsewhere."""
        with self.seal.open() as sealer:
            return sealer.signer.verifier


def proof(id_: str, kind: Any = TOOL_CALL, **row: str) -> proof_pb2.GetProofRequest:
    return proof_pb2.GetProofRequest(kind=kind, row=questions_pb2.RowKey(id=id_, **row))


def cosigned(note: str, witness: Cosigner = WITNESSES[0], seconds: int = 1_790_000_000) -> Any:
    text, signatures = split_note(note)
    own = f"{text}\n{signatures[0].line}"
    return proof_pb2.AddCosignatureRequest(note=own + witness.cosign(text, seconds))


@pytest.fixture
async def world(database: Path, open_ledger: Callable[..., SqliteLedger], tmp_path: Path) -> AsyncIterator[World]:
    write_empty(database)
    store = open_ledger(database)
    seal = Seal(database)
    made = {name: make_token(name, [role]) for name, role in CALLERS.items()}
    callers = tmp_path / "callers"
    callers.write_text("".join(entry for _, entry in made.values()), "utf-8")
    access = AccessInterceptor(rules(), Watched([callers], partial(load_callers, callers)))
    reader = SealReader(seal.place.open_ledger, seal.place.open_log(), lambda: read_policy(POLICY))
    tokens = {name: token for name, (token, _) in made.items()}
    async with serving(store, access, reader=reader) as (address, _), grpc.aio.insecure_channel(address) as channel:
        yield World(LedgerStub(channel), seal, tokens)
    reader.close()


@pytest.mark.long
async def test_a_witness_follows_the_log_by_consistency_proofs_of_any_two_sizes(world):
    seen = [(0, tree.EMPTY_ROOT)]
    world.seal.run()
    for sequence, count in enumerate((1, 2, 5, 250, 300)):
        await world.record(count, sequence=1 + 1000 * sequence)
        world.seal.run()
        for old_size, old_root in seen:
            checkpoint, answer = await world.checkpoint(old_size)
            assert tree.is_consistent(old_root, old_size, checkpoint.root, checkpoint.size, answer.consistency_hashes)
            assert answer.verifier_key == str(world.key)
        seen.append((checkpoint.size, checkpoint.root))
    assert seen[-1][0] >= 558
    for old_size in (checkpoint.size, checkpoint.size + 1, 2**62):
        _, answer = await world.checkpoint(old_size)
        assert not answer.consistency_hashes


async def test_rows_of_each_kind_are_proven_to_whom_they_are_for(world):
    mine: Any = (
        audit_row(),
        cost_row(),
        session_row(id="s", revision=1),
        control_row(audit_pb2.CONTROL_KIND_STOP, scope="everything"),
    )
    call, cost, session, control = mine
    rows = record_request(producer_id="gateway-a", last=4, tool_calls=[call], controls=[control])
    rows.MergeFrom(audit_pb2.RecordRequest(model_requests=[cost], sessions=[session]))
    await world.call("gateway-a", "RecordBatch", rows)
    world.seal.run()
    for row, kind, name in zip(mine, (1, 2, 3, 6), ("tool_call", "model_request", "session", "control"), strict=True):
        for caller in ("gateway-a", "ada", "root"):
            _, leaf = await world.prove(row.id, caller, kind)
            assert (leaf["kind"], leaf["id"], leaf["recorded_by"]) == (name, row.id, "gateway-a")
        await world.prove(row.id, "gateway-a", kind, recorded_by="gateway-a")
        assert (await world.refused("gateway-b", "GetProof", proof(row.id, kind)))[:2] == ("NOT_FOUND", "NOT_FOUND")
        theirs = proof(row.id, kind, recorded_by="gateway-a")
        assert (await world.refused("gateway-b", "GetProof", theirs))[0] == "PERMISSION_DENIED"
        assert (await world.refused("eve", "GetProof", theirs))[0] == "PERMISSION_DENIED"


async def test_who_may_read_a_row_gets_its_texts_and_its_salt_until_they_are_erased(world):
    row = audit_row(args_summary='{"path": "é"}', error="gone")
    await world.call("gateway-a", "RecordBatch", request(row, producer_id="gateway-a", first=1, last=1))
    world.seal.run()
    asked = proof_pb2.GetProofRequest(kind=TOOL_CALL, row=questions_pb2.RowKey(id=row.id), with_texts=True)

    async def texts(name: str) -> tuple[str, dict[str, str]]:
        answer = await world.call(name, "GetProof", asked)
        said = {"salt": answer.texts.salt.hex(), "texts": dict(answer.texts.texts)}
        assert check_texts(answer.leaf.encode(), json.dumps(said).encode()) == sorted(said["texts"])
        return said["salt"], said["texts"]

    for name in ("ada", "root"):
        salt, found = await texts(name)
        assert (len(bytes.fromhex(salt)), found) == (16, {"args_summary": row.args_summary, "error": "gone"})
    for name in ("gateway-a", "eve"):
        assert (await world.refused(name, "GetProof", asked))[0] == "PERMISSION_DENIED"
    assert not (await world.call("ada", "GetProof", proof(row.id))).HasField("texts")
    erase = administration_pb2.EraseRequest(row=questions_pb2.RowKey(id=row.id), reason="asked to")
    async for _ in world.stub.Erase(erase, metadata=(("authorization", f"Bearer {world.token('root')}"),), timeout=30):
        pass
    assert await texts("ada") == ("", {})


async def test_what_is_not_sealed_yet_is_told_from_what_is_not_there(world):
    nothing = proof_pb2.GetCheckpointRequest()
    assert await world.refused("ada", "GetCheckpoint", nothing) == ("FAILED_PRECONDITION", "NOT_SEALED", True)
    [first] = await world.record(1)
    assert await world.refused("ada", "GetProof", proof(first)) == ("FAILED_PRECONDITION", "NOT_SEALED", True)
    world.seal.run()
    await world.prove(first)
    [second] = await world.record(1, sequence=10)
    assert await world.refused("ada", "GetProof", proof(second)) == ("FAILED_PRECONDITION", "NOT_SEALED", True)
    assert await world.refused("ada", "GetProof", proof("nobody")) == ("NOT_FOUND", "NOT_FOUND", False)
    world.seal.run()
    await world.prove(second)


async def test_a_session_is_proven_by_its_newest_sealed_revision_and_an_id_of_two_by_whose_it_is(world):
    async def revise(name: str, revision: int) -> None:
        revised = record_request(producer_id=name, last=revision, sessions=[session_row(id="s", revision=revision)])
        await world.call(name, "RecordBatch", revised)

    for revision in (1, 2):
        await revise("gateway-a", revision)
    world.seal.run()
    await revise("gateway-a", 3)
    assert (await world.prove("s", kind=3))[1]["revision"] == "2"
    row = audit_row()
    for name in ("gateway-a", "gateway-b"):
        await world.call(name, "RecordBatch", request(row, producer_id=name, first=50, last=50))
    world.seal.run()
    assert (await world.refused("ada", "GetProof", proof(row.id)))[:2] == ("FAILED_PRECONDITION", "AMBIGUOUS_ID")
    for name in ("gateway-a", "gateway-b"):
        assert (await world.prove(row.id, "ada", recorded_by=name))[1]["recorded_by"] == name
        assert (await world.prove(row.id, name))[1]["recorded_by"] == name


async def test_a_row_that_was_changed_has_no_proof(world):
    ids = await world.record(3)
    world.seal.run()
    with closing(apsw.Connection(str(world.seal.database))) as connection:
        connection.set_busy_timeout(60_000)  # the service may be writing
        connection.execute("UPDATE tool_call_log SET duration_ms = duration_ms + 1 WHERE id = ?", (ids[1],))
    assert (await world.refused("ada", "GetProof", proof(ids[1])))[:2] == ("DATA_LOSS", "DAMAGED")
    await world.prove(ids[2])


async def test_tiles_are_those_of_the_folder_and_nothing_else_is(world):
    await world.record(300)
    world.seal.run()
    checkpoint, _ = await world.checkpoint()
    for path in (path for path in (world.seal.folder / "tile").rglob("*") if path.is_file()):
        name = str(path.relative_to(world.seal.folder))
        answer = await world.call("ada", "GetTile", proof_pb2.GetTileRequest(path=name))
        assert answer.data == path.read_bytes()
    assert checkpoint.size >= 300
    last = tile_path(0, 1, checkpoint.size - 256)
    shorter = tile_path(0, 1, 3)
    cut = await world.call("root", "GetTile", proof_pb2.GetTileRequest(path=shorter))
    assert cut.data == (world.seal.folder / last).read_bytes()[: 3 * 32]
    for path in ("tile/0/001", tile_path(0, 1, checkpoint.size - 255), "tile/0/002.p/1", "tile/5/000.p/1"):
        assert (await world.refused("ada", "GetTile", proof_pb2.GetTileRequest(path=path)))[0] == "NOT_FOUND"
    for path in (
        *("", "key", "checkpoint", "tile/0/../../key", "tile/0/0", "tile/00/000", "tile/0/x000/001", "tile/64/000"),
        *("tile/0/000.p/0", "tile/0/000.p/256", "/tile/0/000", "tile/entries/000", "tile/0/x001", "tile/0/٠٠٠"),
    ):
        assert (await world.refused("ada", "GetTile", proof_pb2.GetTileRequest(path=path)))[0] == "INVALID_ARGUMENT"
    tile = proof_pb2.GetTileRequest(path="tile/0/000")
    assert (await world.refused("gateway-a", "GetTile", tile))[0] == "PERMISSION_DENIED"


async def test_what_witnesses_sign_is_served_with_the_checkpoint_and_goes_into_proofs(world):
    first, *_ = await world.record(3)
    world.seal.run()
    _, answer = await world.checkpoint()
    for witness in WITNESSES:
        for _ in range(2):
            await world.call("gateway-a", "AddCosignature", cosigned(answer.note, witness))
    checkpoint, told = await world.checkpoint()
    keys = [witness.verifier for witness in WITNESSES]
    assert [each.witness for each in cosignatures(told.note, keys)] == keys
    assert list(told.cosigned_notes) == [told.note]
    [second] = await world.record(1, sequence=10)
    world.seal.run()
    later, answer = await world.checkpoint()
    assert not list(cosignatures(answer.note, keys))
    await world.call("gateway-b", "AddCosignature", cosigned(answer.note, WITNESSES[1]))
    _, answer = await world.checkpoint()
    sizes = sorted(Checkpoint.open(note, world.key).size for note in answer.cosigned_notes)
    assert sizes == [checkpoint.size, later.size]
    made, _ = await world.prove(second)
    assert [each.witness for each in cosignatures(made.note, keys)] == keys[1:]
    made, _ = await world.prove(first)
    assert len(list(cosignatures(made.note, keys))) == 1
    await world.call("gateway-b", "AddCosignature", cosigned(told.note, WITNESSES[1]))  # an older one is not kept
    _, again = await world.checkpoint()
    assert list(again.cosigned_notes) == list(answer.cosigned_notes)
    assert world.seal.verify().problems == []


async def test_what_no_witness_that_is_named_has_signed_is_refused(world):
    await world.record(3)
    world.seal.run()
    _, answer = await world.checkpoint()
    good = cosigned(answer.note).note
    stranger = cosigned(answer.note, Cosigner.new(WITNESSES[0].name))
    assert (await world.refused("ada", "AddCosignature", stranger))[:2] == ("NOT_FOUND", "NOT_FOUND")
    raw = bytearray(base64.b64decode(good.split(" ")[-1]))
    raw[20] ^= 1
    bent = good.rsplit(" ", 1)[0] + f" {base64.b64encode(raw).decode()}\n"
    another = Signer.new(ORIGIN).sign(split_note(answer.note)[0])
    for note in ("", "none", answer.note, bent, cosigned(another).note, good + "x", good + "\n" * 20_000):
        refused = await world.refused("gateway-a", "AddCosignature", proof_pb2.AddCosignatureRequest(note=note))
        assert refused == ("INVALID_ARGUMENT", "INVALID_REQUEST", False), note
    assert not (world.seal.folder / "cosigned").exists()


async def test_a_log_that_signed_other_leaves_once_hears_it_of_its_witness(world):
    await world.record(3)
    world.seal.run()
    older = {path: path.read_bytes() for path in world.seal.folder.rglob("*") if path.is_file()}
    await world.record(2, sequence=10)
    world.seal.run()
    checkpoint, answer = await world.checkpoint()
    longer = cosigned(answer.note)
    for path in world.seal.folder.rglob("*"):
        if path.is_file() and path not in older:
            path.unlink()
    for path, content in older.items():
        path.write_bytes(content)
    assert (await world.refused("gateway-a", "AddCosignature", longer))[:2] == ("DATA_LOSS", "DAMAGED")
    with world.seal.open() as sealer:
        fork = Checkpoint(ORIGIN, sealer.size - 1, b"\1" * 32)
        forked = cosigned(sealer.signer.sign(str(fork)))
    assert (await world.refused("gateway-a", "AddCosignature", forked))[:2] == ("DATA_LOSS", "DAMAGED")
    rolled_back, answer = await world.checkpoint(checkpoint.size)
    assert rolled_back.size < checkpoint.size
    assert not answer.consistency_hashes


async def test_who_asks_for_a_proof_is_on_the_record_and_a_producer_of_its_own_rows_is_not(world):
    [mine] = await world.record(1)
    world.seal.run()
    await world.prove(mine, "gateway-a")
    await world.prove(mine, "ada")

    async def asked() -> list[tuple[str, str]]:
        queries = await world.call("root", "ListQueries", administration_pb2.ListQueriesRequest(method="GetProof"))
        return [(query.caller, query.filters) for query in queries.queries if query.method == "GetProof"]

    while not (found := await asked()):
        await asyncio.sleep(0.05)
    assert [caller for caller, _ in found] == ["ada"]
    assert mine in found[0][1]


async def test_a_service_that_seals_nothing_says_so(ledger):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await ledger.GetCheckpoint(proof_pb2.GetCheckpointRequest())
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "AUDIT_SEAL_SECONDS" in str(error.value.details())


def test_a_line_of_a_policy_that_cannot_be_meant_is_named_by_its_number():
    assert len(read_policy(POLICY)) == 2
    key, new = WITNESSES[0].verifier, Cosigner.new("w").verifier
    for line in (
        *("witness", "witness a", f"witness a {new} ftp://x", "watcher a b", "witness a b c d e"),
        *(f"witness a {Signer.new('log').verifier}", f"witness {WITNESSES[0].name} {new}", f"witness again {key}"),
    ):
        with pytest.raises(BadLine, match="line 6"):
            read_policy(f"{POLICY}{line}\n")
