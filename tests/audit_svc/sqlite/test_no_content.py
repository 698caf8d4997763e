"""R12: there is no place for content, neither in the tables nor on the wire."""

import re

import apsw
from google.protobuf.descriptor import Descriptor
from onrecord.audit.v1 import administration_pb2, audit_pb2, questions_pb2

FORBIDDEN = {"content", "stdout", "stderr", "body", "response_body", "output", "text", "input", "prompt", "response"}
MESSAGES = [
    message
    for module in (audit_pb2, questions_pb2, administration_pb2)
    for message in module.DESCRIPTOR.message_types_by_name.values()
]
COUNTS = re.compile(r".*_(tokens|bytes)")


def names_content(name: str) -> bool:
    """Whether a field of this name could hold content: input_tokens is a count."""
    return not COUNTS.fullmatch(name) and bool(FORBIDDEN & {name, *name.split("_")})


def test_the_rule_itself_finds_what_it_forbids():
    assert all(map(names_content, FORBIDDEN | {"tool_stdout", "body_text"}))
    assert not any(map(names_content, ["input_tokens", "result_bytes", "args_summary"]))


def test_no_table_has_a_column_for_content(connection: apsw.Connection):
    columns = connection.execute(
        "SELECT t.name, c.name FROM pragma_table_list t, pragma_table_info(t.name) c WHERE t.schema = 'main'"
    ).fetchall()
    assert ("tool_call_log", "args_summary") in columns
    assert [column for column in columns if names_content(str(column[1])) and column[0] != "sqlite_schema"] == []


def test_no_field_of_the_wire_can_carry_content():
    fields: list[str] = []

    def walk(message: Descriptor) -> None:
        fields.extend(f"{message.name}.{field.name}" for field in message.fields)
        for nested in message.nested_types:
            walk(nested)

    for message in MESSAGES:
        walk(message)
    assert "AuditRow.args_summary" in fields
    assert [field for field in fields if names_content(field.split(".")[1])] == []


def test_bytes_have_no_field_but_that_of_a_backup():
    fields = [field for message in MESSAGES for field in message.fields if field.type == field.TYPE_BYTES]
    assert [field.full_name for field in fields] == ["onrecord.audit.v1.BackupResponse.data"]
