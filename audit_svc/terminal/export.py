"""Rows of one kind into files that other programs read: JSON lines, CSV, Parquet."""

import csv
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated, Any, NamedTuple, Protocol

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onrecord.audit.v1 import audit_pb2, questions_pb2

from audit_svc.terminal.client import (
    PAGE,
    PAGE_SECONDS,
    Client,
    connect,
    named_session,
    refuse_unknown,
    say_nothing_matches,
)
from audit_svc.terminal.options import Calls, Contains, Labels, Source, Times, label_values
from audit_svc.terminal.plain import flat_fields, json_line, to_dict, to_flat_dict
from audit_svc.terminal.running import Force, progress, refuse_existing
from service_kit.extras import is_missing
from service_kit.printable import printable
from service_kit.terminal.command import BadParameter, Option
from service_kit.terminal.failures import Failed


def fields_of(row: type[Message]) -> dict[str, Any]:
    """The fields of a line: the producer's row, and beside it the ledger's receipt."""
    return flat_fields(row.DESCRIPTOR) | flat_fields(questions_pb2.Receipt.DESCRIPTOR)


FIELDS = fields_of(audit_pb2.AuditRow)
"""Of a tool call."""

_FORMULA = re.compile(
    "((?:^|[,;|\\t\\n\\v\\f\\r\\x1c-\\x1e\\x85\u2028\u2029])[ \xa0\"']*)(?=[-=+@\uff0b\uff0d\uff1d\uff20])"
)
"""What a spreadsheet takes for the beginning of a formula, the full-width forms of the signs too."""


class Format(StrEnum):
    """What is written."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    SEALED = "sealed"
    """All leaves of the log, which `audit-svc verify --export` checks; of a file alone."""


class Kind(StrEnum):
    """Which rows are written."""

    CALLS = "calls"
    REQUESTS = "requests"
    SESSIONS = "sessions"
    CONTROLS = "controls"


class _Asked(NamedTuple):
    """How the rows of a kind are asked for."""

    rpc: str
    """A stream, or a list in pages."""
    request: type[Message]
    filter: type[Message]
    rows: str
    """Their field in a response."""
    row: type[Message]


_ASKED = {
    Kind.CALLS: _Asked(
        "ExportToolCalls",
        questions_pb2.ExportToolCallsRequest,
        questions_pb2.ToolCallFilter,
        "tool_calls",
        audit_pb2.AuditRow,
    ),
    Kind.REQUESTS: _Asked(
        "ExportModelRequests",
        questions_pb2.ExportModelRequestsRequest,
        questions_pb2.ModelRequestFilter,
        "model_requests",
        audit_pb2.CostRow,
    ),
    Kind.SESSIONS: _Asked(
        "ListSessionRecords",
        questions_pb2.ListSessionRecordsRequest,
        questions_pb2.SessionFilter,
        "sessions",
        audit_pb2.SessionRow,
    ),
    Kind.CONTROLS: _Asked(
        "ListControls",
        questions_pb2.ListControlsRequest,
        questions_pb2.ControlFilter,
        "controls",
        audit_pb2.ControlRow,
    ),
}
_OPTIONS = {
    "session_id": "--session",
    "turn_id": "--turn",
    "tool_name": "--tool",
    "outcomes": "--outcome",
    "labels": "--label",
    "args_contain": "--contains",
}
"""Of the filters' fields, those whose option has another name."""


class Sink(Protocol):
    """Where an export goes."""

    def write(self, rows: Iterable[Message]) -> None:
        """Writes rows."""
        ...

    def close(self) -> None:
        """Writes what is left."""
        ...


def export(
    calls: Calls,
    times: Times,
    source: Source,
    output: Annotated[Path | None, Option("--output", "-o", help="The file; stdout when not given.")] = None,
    form: Annotated[Format, Option("--format", help="Parquet needs the extra `parquet`, and --output.")] = Format.JSONL,
    kind: Annotated[Kind, Option(help="Calls and requests come the oldest first, the others the newest.")] = Kind.CALLS,
    label: Labels = None,
    contains: Contains = "",
    force: Force = False,
) -> None:
    """Write tool calls, or rows of another kind, to a file.

    With --format sealed it is the whole log of a ledger's file, which `audit-svc verify --export` checks elsewhere.
    """
    asked = _ASKED[kind]
    if output:
        refuse_existing(output, force=force)
    if form is not Format.SEALED:
        calls.session = named_session(source, calls.session, "--session")
    wanted = calls.fields() | times.fields() | {"labels": label_values(label), "args_contain": contains}
    try:
        if form is Format.SEALED:
            if kind is not Kind.CALLS or any(value not in (None, "", [], {}) for value in wanted.values()):
                raise BadParameter("is of the whole log: leave out filters and --kind", param_hint="--format sealed")
            _write_sealed(source, output, force=force)
            return
        request = asked.request(filter=_filter(kind, wanted))
        with _named_at_the_end(output, force=force) as path, ExitStack() as stack:
            sink = _open_sink(stack, form, path, fields_of(asked.row))
            client = stack.enter_context(connect(source))
            told = stack.enter_context(_progress(output, kind))
            if not _copy(_parts(client, asked, request), sink, told):
                refuse_unknown(client, calls)
                say_nothing_matches(times)
    except OSError as error:
        if output is None:
            raise
        raise Failed(f"{output} cannot be written: {error.strerror}") from None


def _write_sealed(source: Source, output: Path | None, *, force: bool) -> None:
    from audit_svc.terminal.seal import sealed_export  # no other format needs it

    if source.target is not None:
        raise BadParameter("is of a file: give --db, or leave it out for AUDIT_DB", param_hint="--format sealed")
    with _named_at_the_end(output, force=force) as path, progress("exporting") as tell, ExitStack() as stack:
        file = sys.stdout if path is None else stack.enter_context(path.open("w", encoding="utf-8", newline=""))
        sealed_export.write(source.db, file, tell)


def _filter(kind: Kind, wanted: Mapping[str, Any]) -> Message:
    """The filter of a kind of rows. Raises BadParameter for what they do not have."""
    filter_type = _ASKED[kind].filter
    given = {name: value for name, value in wanted.items() if value not in (None, "", [], {})}
    if wanted["recorded_by"] is not None:  # which may be empty
        given["recorded_by"] = wanted["recorded_by"]
    if kind is Kind.SESSIONS and "session_id" in given:
        given["id"] = given.pop("session_id")
    for name in given:
        if name not in filter_type.DESCRIPTOR.fields_by_name:
            option = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
            raise BadParameter(f"says nothing of {kind}: leave it out, or choose another --kind", param_hint=option)
    return filter_type(**given)


def _parts(client: Client, asked: _Asked, request: Any) -> Iterator[tuple[list[Any], bool]]:
    """All rows, a response's at once, and whether they are the last."""
    if asked.rpc.startswith("Export"):
        for response in client.call(asked.rpc, request):
            yield getattr(response, asked.rows), not response.resume_token
        return
    request.page_size = PAGE
    while True:
        response = client.call(asked.rpc, request, PAGE_SECONDS)
        request.page_token = response.next_page_token
        yield getattr(response, asked.rows), not request.page_token
        if not request.page_token:
            return


def _copy(parts: Iterable[tuple[list[Any], bool]], sink: Sink, tell: Callable[[int, int], None]) -> int:
    """How many there were."""
    is_whole = False
    written = 0
    for rows, is_last in parts:
        sink.write(rows)
        is_whole = is_last
        written += len(rows)
        tell(written, 0)
    sink.close()
    if not is_whole:
        raise Failed("the export was cut: it ended before its last part")
    return written


@contextmanager
def _named_at_the_end(output: Path | None, *, force: bool) -> Iterator[Path | None]:
    """A file for its user alone, which is output once it is complete; a device or a pipe is written directly.

    Raises:
        Failed: output has come meanwhile, without force.
    """
    if output is None or (output.exists() and not output.is_file()):
        yield output
        return
    output = output.resolve()
    partial = output.with_name(f".{output.name}.{secrets.token_hex(4)}.partial")
    try:
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        yield partial
        if not force:
            with suppress(PermissionError):  # a file system without links
                os.link(partial, output)
                return
            refuse_existing(output, force=force)
        partial.replace(output)
    except FileExistsError:
        refuse_existing(output, force=force)
        raise
    finally:
        partial.unlink(missing_ok=True)


def _open_sink(stack: ExitStack, form: Format, output: Path | None, fields: Mapping[str, Any]) -> Sink:
    if form is Format.PARQUET:
        if output is None:
            raise BadParameter("a Parquet file needs --output", param_hint="--format")
        return _ParquetSink(output, fields)
    file = sys.stdout if output is None else stack.enter_context(output.open("w", encoding="utf-8", newline=""))
    return _JsonLines(file) if form is Format.JSONL else _Csv(file, fields)


def _progress(output: Path | None, kind: Kind) -> AbstractContextManager[Callable[[int, int], None]]:
    """Tells how far it is, where stderr is a terminal and a file is written."""
    return nullcontext(lambda done, total: None) if output is None else progress(kind)


class _JsonLines:
    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, rows: Iterable[Message]) -> None:
        self._file.writelines(json_line(to_dict(row)) for row in rows)

    def close(self) -> None:
        self._file.flush()


class _Csv:
    def __init__(self, file: IO[str], fields: Mapping[str, Any] = FIELDS) -> None:
        self._file, self._fields = file, fields
        self._writer = csv.DictWriter(file, list(fields), quoting=csv.QUOTE_ALL)
        self._is_shown = file.isatty()
        self._writer.writeheader()

    def write(self, rows: Iterable[Message]) -> None:
        self._writer.writerows(
            {name: self._cell(value) for name, value in to_flat_dict(row).items() if name in self._fields}
            for row in rows
        )

    def close(self) -> None:
        self._file.flush()

    def _cell(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return without_formulas(printable(value) if self._is_shown else value)


def without_formulas(text: str) -> str:
    """A cell in which no spreadsheet finds a formula, whichever separator it uses: others write the rows' content.

    An apostrophe, as spreadsheets want it, stands ahead of what would begin one: at the cell's beginning, and behind
    what may separate cells or lines. Blanks do not count as separators, since commands are full of them.
    """
    text = _FORMULA.sub(r"\1'", text)
    return f"'{text}" if text.startswith(("\t", "\r", "\n")) else text


class _ParquetSink:
    def __init__(self, path: Path, fields: Mapping[str, Any]) -> None:
        try:
            import pyarrow  # an extra, loaded where it is asked for
            from pyarrow import parquet
        except ImportError:
            raise BadParameter(is_missing("parquet"), param_hint="--format parquet") from None
        types = {
            FieldDescriptor.TYPE_INT64: pyarrow.int64(),
            FieldDescriptor.TYPE_INT32: pyarrow.int32(),
            FieldDescriptor.TYPE_UINT32: pyarrow.uint32(),
            FieldDescriptor.TYPE_BOOL: pyarrow.bool_(),
        }
        self._schema = pyarrow.schema(
            [(name, types.get(field.type, pyarrow.string())) for name, field in fields.items()]
        )
        self._table = pyarrow.Table.from_pylist
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")

    def write(self, rows: Iterable[Message]) -> None:
        self._writer.write_table(self._table([to_flat_dict(row) for row in rows], schema=self._schema))

    def close(self) -> None:
        self._writer.close()
