"""`audit-svc producers` and `check`: what never came, and what was refused."""

import json

import grpc
import pytest
from onrecord.audit.v1 import audit_pb2_grpc

from audit_svc.ledger.batch import read_batch
from audit_svc.sqlite.care.check import check
from demo.processes import start_service
from tests.audit_svc.samples import NOW_MS, audit_row, request
from tests.audit_svc.test_process import MODULE, run
from tests.support.forked import run_command


@pytest.mark.long
def test_a_running_service_is_asked_as_by_other_questions(tmp_path):
    """The file that AUDIT_DB names is not the service's."""
    env = {"AUDIT_DB": str(tmp_path / "audit.db"), "AUDIT_LISTEN": "127.0.0.1:0"}
    with start_service(MODULE, env, "serve") as service:
        with grpc.insecure_channel(service.address) as channel:
            sent = request(audit_row(), producer_id="gateway-1", last=3)
            audit_pb2_grpc.AuditServiceStub(channel).RecordBatch(sent)
        for at, words in (({"AUDIT_LISTEN": service.address}, []), ({}, ["--target", service.address])):
            told = run_command(MODULE, {"AUDIT_DB": str(tmp_path / "none.db"), **at}, "producers", "--json", *words)
            assert told.returncode == 0, told.stderr
            (found,) = map(json.loads, told.stdout.splitlines())
            assert (found["id"], found["highest_sequence"], found["missing"]) == ("gateway-1", 3, 2)
        both = run_command(MODULE, {}, "producers", "--target", service.address, "--db", env["AUDIT_DB"])
        assert (both.returncode, "give a file or a service" in both.stderr) == (2, True)


@pytest.mark.long
def test_what_never_came_and_what_was_refused_is_told_of_each_producer(writer, database):
    for number in (1, 2, 5):
        sent = request(audit_row(), audit_row(id=""), producer_id="gateway-1", last=number)
        writer.record(read_batch(sent, NOW_MS)).result()
    writer.record(read_batch(request(audit_row(tool_name="x" * 129)), NOW_MS)).result()
    writer.close()
    told = run(database, "producers", "--db", str(database), "--json")
    assert told.returncode == 0, told.stderr
    found = {row["id"]: row for row in map(json.loads, told.stdout.splitlines())}
    one = found["gateway-1"]
    assert (one["highest_sequence"], one["missing"], one["refused"], one["reasons"]) == (5, 2, 3, "invalid")
    assert (found[""]["refused"], found[""]["reasons"]) == (1, "too_large")
    assert "gateway-1" in run(database, "producers", "--db", str(database)).stdout
    notes = [finding.detail for finding in check(database, lambda *_: None) if finding.state == "note"]
    assert any("gateway-1: records 1 to 5: rows refused as invalid: 3" in note for note in notes)
    assert any("without numbers: rows refused as too_large: 1" in note for note in notes)
