"""ROW_VERSION is held to the protos: whatever a row can carry more needs a number that older ledgers refuse."""

import re

from onrecord.audit.v1 import audit_pb2

from demo.processes import REPOSITORY
from recording.row_version import ROW_VERSION
from tests.protos.fingerprint import describe, file_of


def test_what_the_rows_have_is_what_their_version_says():
    """Fails when a field or an enum value of the rows was changed, and the number was not."""
    known = file_of(ROW_VERSION)
    assert known.exists(), f"say what version {ROW_VERSION} has: python -m tests.protos.fingerprint"
    assert describe() == known.read_text(), (
        "the rows have changed, and a ledger that does not know the change would lose it: raise ROW_VERSION in "
        "recording/row_version.py, add its line to the table in protos/README.md, and run "
        "`python -m tests.protos.fingerprint`. (A version that is in no release may be written anew: run it alone.)"
    )


def test_a_version_only_adds():
    """A field or a value that went would be unknown to the rows that lie in spools."""
    for version in range(1, ROW_VERSION):
        later = file_of(version + 1).read_text()
        known = {*later.splitlines(), *later.replace(": optional ", ": ").splitlines()}  # which it may have become
        gone = set(file_of(version).read_text().splitlines()) - known
        assert not gone, f"version {version + 1} lacks what version {version} had"


def test_the_contract_lists_every_version():
    table = (REPOSITORY / "protos/README.md").read_text().split("| row_version | added |")[1].split("\n\n")[0]
    assert [int(number) for number in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == [*range(1, ROW_VERSION + 1)]


def test_kinds_follow_the_lists_of_a_batch():
    """So that a rejection of a kind that a producer does not know names a row that it can find."""
    fields = audit_pb2.RecordRequest.DESCRIPTOR.fields
    rows = [field for field in fields if field.message_type and field.message_type.name.endswith("Row")]
    assert [field.number - 2 for field in rows] == [number for number in audit_pb2.RowKind.values() if number]
