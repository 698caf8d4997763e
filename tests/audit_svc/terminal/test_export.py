"""CSV that a spreadsheet opens: no cell is a formula, whichever separator it is told, and no row breaks another."""

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from onrecord.audit.v1 import audit_pb2, questions_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.terminal.export import FIELDS, _Csv, without_formulas
from audit_svc.terminal.plain import print_json

SIGNS = "=+-@\uff1d\uff0b\uff0d\uff20"
SEPARATORS = ",;|\t"


def record(**fields: Any) -> questions_pb2.ToolCallRecord:
    return questions_pb2.ToolCallRecord(tool_call=audit_pb2.AuditRow(**fields))


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("a;=1+1", "a;'=1+1"),
        ("a,@SUM(A1)", "a,'@SUM(A1)"),
        ('a; "=1+1', "a; \"'=1+1"),
        ("a\n=1", "a\n'=1"),
        ("a\r\n+1\t-2|=3", "a\r\n'+1\t'-2|'=3"),
        ("\t=1", "'\t'=1"),
        ("\uff1d1", "'\uff1d1"),
        ("git log --oneline a=b", "git log --oneline a=b"),
        ("", ""),
    ],
)
def test_what_begins_a_formula_is_escaped(text, cell):
    assert without_formulas(text) == cell


CELLS = st.text(alphabet=st.sampled_from([*SIGNS, *SEPARATORS, *"ab1\"' \r\n"]), max_size=12)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=3))
@example([('";=1', "\n=1")])
def test_no_separator_makes_a_formula(rows):
    """Each file is read as spreadsheets do by every separator, quoted or not."""
    file = io.StringIO()
    sink = _Csv(file)
    sink.write([record(args_summary=summary, tool_name=name) for summary, name in rows])
    text = file.getvalue()
    read = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["args_summary"] for row in read] == [without_formulas(summary) for summary, _ in rows]
    for separator in SEPARATORS:
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
            for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator, quoting=quoting):
                assert not [cell for cell in row if cell.strip(" \"'\r\n")[:1] in {*SIGNS} and not is_escaped(cell)], (
                    row
                )


def is_escaped(cell: str) -> bool:
    """Whether an apostrophe stands ahead of the sign that the cell begins with."""
    sign = next(at for at, character in enumerate(cell) if character in SIGNS)
    return "'" in cell[:sign]


def test_every_cell_is_quoted():
    file = io.StringIO()
    _Csv(file).write([record(id="a", duration_ms=5)])
    header, row = file.getvalue().splitlines()
    assert header == ",".join(f'"{name}"' for name in FIELDS)
    assert row.startswith('"a",')
    assert all(cell.startswith('"') and cell.endswith('"') for cell in row.split(","))


def test_who_acted_and_what_decided_have_columns_and_json_of_their_own(capsys):
    full = record(
        id="a",
        agent={"name": "helper"},
        args_digest={"key_id": "k", "hmac_sha256": b"\x01" * 32},
        decision={"verdict": common_pb2.VERDICT_ALLOWED, "decided_by": "bob", "reason": "=1"},
    )
    file = io.StringIO()
    _Csv(file).write([full, record(id="b")])
    cells, bare = csv.DictReader(io.StringIO(file.getvalue()))
    assert (cells["agent_name"], cells["decision_verdict"], cells["decision_decided_by"]) == (
        "helper",
        "allowed",
        "bob",
    )
    assert (cells["args_digest_hmac_sha256"], cells["decision_reason"]) == ("01" * 32, "'=1")
    assert (bare["agent_name"], bare["decision_verdict"]) == ("", "")
    print_json(full)
    told = json.loads(capsys.readouterr().out)
    assert (told["decision"]["decided_by"], told["args_digest"]["hmac_sha256"]) == ("bob", "01" * 32)
