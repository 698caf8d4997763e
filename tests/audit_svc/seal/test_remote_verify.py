"""`verify` and `proof` of a running service: everything by RPC, with a key that was kept elsewhere."""

import json
import shutil
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import grpc
import pytest
from onrecord.audit.v1 import proof_pb2

from demo.processes import Service, run_command
from recording.transparency.cosignature import Cosigner
from recording.transparency.note import Verifier, split_note
from tests.audit_svc.seal.scripted_witness import ScriptedWitness
from tests.audit_svc.seal.test_process import command, leaves, record, serve, until
from tests.audit_svc.stubs import LedgerStub

pytestmark = pytest.mark.long
COSIGNER = Cosigner.new("witness.example.com/w1")


class World:
    """A ledger that is served, and what an auditor kept of it."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "audit.db"
        self.seal = folder / "audit.db.seal"
        self.key = folder / "kept.pub"
        self.old = folder / "kept.checkpoint"
        self.policy = folder / "witnesses"
        self.policy.write_text(f"witness w1 {COSIGNER.verifier}\n")
        self.sent = 0

    def serve(self) -> Service:
        return serve(self.database, AUDIT_SEAL_WITNESSES=str(self.policy))

    def record(self, service: Service, rows: int) -> list[str]:
        self.sent += 1
        before = leaves(self.database)
        ids = record(service, rows, self.sent)
        until(lambda: leaves(self.database) >= before + rows)
        return ids

    def keep(self) -> None:
        shutil.copy(self.seal / "key.pub", self.key)
        shutil.copy(self.seal / "checkpoint", self.old)

    def cosign(self, service: Service) -> None:
        with grpc.insecure_channel(service.address) as channel:
            note = LedgerStub(channel).GetCheckpoint(proof_pb2.GetCheckpointRequest()).note
            text, signatures = split_note(note)
            line = COSIGNER.cosign(text, 1_790_000_000)
            LedgerStub(channel).AddCosignature(
                proof_pb2.AddCosignatureRequest(note=f"{text}\n{signatures[0].line}{line}")
            )

    def verify(self, service: Service, *args: str) -> tuple[int, dict[str, Any]]:
        done = self.run(service, "verify", "--key", str(self.key), "--json", *args)
        return done.returncode, json.loads(done.stdout) if done.stdout else {"said": done.stderr}

    def run(self, service: Service, *args: str) -> subprocess.CompletedProcess[str]:
        return run_command("audit_svc", {}, *args, "--target", service.address)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_service_is_verified_from_outside_and_its_proofs_need_no_ledger(world, tmp_path):
    with world.serve() as service:
        ids = world.record(service, 700)
        world.keep()
        world.record(service, 20)
        world.cosign(service)
        witness = ("--witness", str(COSIGNER.verifier))
        code, said = world.verify(service, "--old-checkpoint", str(world.old), *witness)
        assert code == 0, said
        assert (code, said["verified"], said["rows"], said["problems"]) == (0, True, 20, [])
        assert said["leaves"] >= 720
        assert [(seen["name"], seen["leaves"]) for seen in said["witnesses"]] == [(COSIGNER.name, said["leaves"])]
        proof = tmp_path / "row.tlog-proof"
        texts = tmp_path / "texts.json"
        proof.write_text(world.run(service, "proof", ids[3], "--texts", str(texts)).stdout)
        assert world.run(service, "proof", ids[3][-12:]).stdout == world.run(service, "proof", ids[3]).stdout
        short = world.run(service, "proof", "all")
        assert (short.returncode, short.stderr.count("needs at least 4 characters")) == (1, 1)
        gone = world.run(service, "proof", "nobody")
        assert (gone.returncode, gone.stdout) == (1, "")
        assert "the ledger has no tool call, model request, session or act of control" in gone.stderr
        code, said = world.verify(service, "--witness", str(Cosigner.new("w2").verifier), *witness)
        assert code == 1
        assert "1 of the witnesses have seen this log, and 2 are needed" in said["problems"][0]
        assert world.verify(service, "--witness", str(Cosigner.new("w2").verifier), *witness, "--quorum", "1")[0] == 0
        assert world.verify(service, *witness, "--quorum", "2")[0] == 2
        unkeyed = world.run(service, "verify")
        assert unkeyed.returncode == 2
        assert "--key" in unkeyed.stderr
        assert service.terminate() == 0
        assert world.verify(service)[0] == 2
    checked = command(world.database, "verify", "--proof", str(proof), "--key", str(world.key), *witness)
    assert checked.returncode == 0, checked.stderr
    assert ids[3] in checked.stdout
    fitting = ("verify", "--proof", str(proof), "--texts", str(texts), "--key", str(world.key))
    assert "texts that were sealed so: args_summary" in command(world.database, *fitting).stdout
    assert texts.stat().st_mode & 0o777 == 0o600
    alone = command(world.database, "verify", "--key", str(world.key), *witness, "--json")
    assert alone.returncode == 0, alone.stdout
    assert json.loads(alone.stdout)["witnesses"][0]["name"] == COSIGNER.name
    shutil.copytree(world.seal, tmp_path / "copy", ignore=shutil.ignore_patterns("key", "index.db*"))
    tiles = ("verify", "--tiles", str(tmp_path / "copy"), "--key", str(world.key), *witness)
    assert run_command("audit_svc", {}, *tiles, "--old-checkpoint", str(world.old)).returncode == 0
    (tmp_path / "copy/tile/0/001").write_bytes((tmp_path / "copy/tile/0/000").read_bytes())
    assert run_command("audit_svc", {}, *tiles).returncode == 1
    whole = tmp_path / "whole"
    exported = command(world.database, "export", "--format", "sealed", "--output", str(whole))
    assert exported.returncode == 0, exported.stderr
    checks = ("verify", "--export", str(whole), "--key", str(world.key), "--old-checkpoint", str(world.old), *witness)
    checked = run_command("audit_svc", {}, *checks, "--json")
    assert checked.returncode == 0, checked.stdout
    assert json.loads(checked.stdout)["rows"] == json.loads(alone.stdout)["rows"]
    whole.write_text(whole.read_text().replace(ids[3], ids[4]))
    assert run_command("audit_svc", {}, *checks).returncode == 1
    assert run_command("audit_svc", {}, *checks[:3]).returncode == 2
    assert command(world.database, "export", "--format", "sealed", "--tool", "bash").returncode == 2
    stranger = str(Cosigner.new(COSIGNER.name).verifier)
    refused = command(world.database, "verify", "--proof", str(proof), "--key", str(world.key), "--witness", stranger)
    assert refused.returncode == 1
    assert "0 of the witnesses" in refused.stderr


def test_a_log_that_was_written_anew_with_the_right_key_is_told_by_who_remembers(world):
    with world.serve() as service:
        ids = world.record(service, 300)
        world.keep()
        world.cosign(service)
        assert service.terminate() == 0
    with closing(apsw.Connection(str(world.database))) as connection:
        connection.set_busy_timeout(60_000)  # the service may be writing
        connection.execute("UPDATE tool_call_log SET duration_ms = duration_ms + 1 WHERE id = ?", (ids[5],))
    for name in ("tile", "checkpoint", "index.db"):
        path = world.seal / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with world.serve() as service:
        until(lambda: leaves(world.database) >= 300)
        assert world.verify(service)[0] == 0
        code, said = world.verify(service, "--old-checkpoint", str(world.old))
        assert code == 1
        assert "it was written anew" in said["problems"][0]
        code, said = world.verify(service, "--witness", str(COSIGNER.verifier))
        assert code == 1
        assert "rolled back or written anew" in said["problems"][0]
        with closing(apsw.Connection(str(world.database))) as connection:
            connection.set_busy_timeout(60_000)  # the service may be writing
            connection.execute("UPDATE tool_call_log SET outcome = 'failed'")
        code, said = world.verify(service)
        assert code == 1
        assert len(said["problems"]) == 20
        assert "is not what was sealed" in said["problems"][0]
        assert service.terminate() == 0


def test_a_log_that_shrank_or_lost_a_tile_is_told(world):
    with world.serve() as service:
        world.record(service, 300)
        assert service.terminate() == 0
    copy = world.seal.with_name("copy")
    shutil.copytree(world.seal, copy)
    with world.serve() as service:
        world.record(service, 5)
        world.keep()
        assert service.terminate() == 0
    shutil.rmtree(world.seal)
    copy.rename(world.seal)
    with closing(apsw.Connection(str(world.database))) as connection:
        connection.set_busy_timeout(60_000)  # the service may be writing
        connection.execute("DELETE FROM tool_call_log WHERE position > 300")
    with world.serve() as service:
        code, said = world.verify(service, "--old-checkpoint", str(world.old))
        assert code == 1
        assert "it was rolled back" in said["problems"][0]
        tile = world.seal / "tile/0/000"
        data = bytearray(tile.read_bytes())
        data[77] ^= 1
        tile.write_bytes(data)
        world.record(service, 1)  # tiles of an unchanged size are remembered
        code, said = world.verify(service)
        assert code == 1
        tile.unlink()
        world.record(service, 1)
        code, said = world.verify(service)
        assert code == 1
        assert service.terminate() == 0


def test_a_service_has_its_log_cosigned_and_handed_out_by_its_settings(world, tmp_path):
    key = command(world.database, "seal", "key", "new", "ledger.example.com/test").stdout.strip()
    witness = ScriptedWitness("witness.example.com/w2", Verifier.parse(key))
    witness.start()
    world.policy.write_text(witness.line)
    taken = tmp_path / "taken"
    settings = {"AUDIT_SEAL_OUTSIDE_SECONDS": "0.1", "AUDIT_SEAL_HOOK": f"cp /dev/stdin {taken}"}
    try:
        with serve(world.database, AUDIT_SEAL_WITNESSES=str(world.policy), **settings) as service:
            world.record(service, 300)
            world.keep()
            until(lambda: witness.size >= 300 and taken.exists())
            said = world.verify(service, "--witness", str(witness.cosigner.verifier), "--old-checkpoint", str(taken))
            assert said[0] == 0, said
            witness.stop()
            world.record(service, 1)
            until(lambda: "seal.holder_away" in service.stderr_text())
            witness.size += 1000
            witness.start()
            until(lambda: "seal.contradicted" in service.stderr_text())
            assert service.terminate() == 0
    finally:
        witness.stop()
