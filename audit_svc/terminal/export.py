"""Tool calls into files that other programs read: JSON lines, CSV, Parquet."""

import csv
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated, Any, Protocol

from google.protobuf.descriptor import FieldDescriptor
from onrecord.audit.v1 import audit_pb2, questions_pb2

from audit_svc.terminal.client import connect, named_session
from audit_svc.terminal.options import Calls, Contains, Labels, Source, Times, label_values
from audit_svc.terminal.plain import flat_fields, json_line, to_dict, to_flat_dict
from audit_svc.terminal.running import EXIT_FAILED, err, progress
from service_kit.printable import printable
from service_kit.terminal.command import BadParameter, Exit, Option

FIELDS = flat_fields(audit_pb2.AuditRow.DESCRIPTOR) | flat_fields(questions_pb2.Receipt.DESCRIPTOR)
"""Of a line: the producer's row, and beside it the ledger's receipt."""

_FORMULA = re.compile(
    "((?:^|[,;|\\t\\n\\v\\f\\r\\x1c-\\x1e\\x85\u2028\u2029])[ \xa0\"']*)(?=[-=+@\uff0b\uff0d\uff1d\uff20])"
)
"""What a spreadsheet takes for the beginning of a formula, the full-width forms of the signs too."""


class Format(StrEnum):
    """What is written."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


class Sink(Protocol):
    """Where an export goes."""

    def write(self, rows: Iterable[questions_pb2.ToolCallRecord]) -> None:
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
    label: Labels = None,
    contains: Contains = "",
) -> None:
    """Write tool calls to a file, the oldest first."""
    calls.session = named_session(source, calls.session, "--session")
    filters = questions_pb2.ToolCallFilter(
        **calls.fields(), **times.fields(), labels=label_values(label), args_contain=contains
    )
    request = questions_pb2.ExportToolCallsRequest(filter=filters)
    try:
        with _named_at_the_end(output) as path, ExitStack() as stack:
            sink = _open_sink(stack, form, path)
            client = stack.enter_context(connect(source))
            _copy(client.call("ExportToolCalls", request), sink, stack.enter_context(_progress(output)))
    except OSError as error:
        if output is None:
            raise
        err.print(f"{output} cannot be written: {error.strerror}", style="red")
        raise Exit(EXIT_FAILED) from None


def _copy(
    responses: Iterable[questions_pb2.ExportToolCallsResponse], sink: Sink, tell: Callable[[int, int], None]
) -> None:
    is_whole = False
    written = 0
    for response in responses:
        sink.write(response.tool_calls)
        written += len(response.tool_calls)
        tell(written, 0)
        is_whole = not response.resume_token
    sink.close()
    if not is_whole:
        err.print("the export was cut: it ended before its last part", style="red")
        raise Exit(EXIT_FAILED)


@contextmanager
def _named_at_the_end(output: Path | None) -> Iterator[Path | None]:
    """A file for its user alone, which replaces output once it is complete; a device or a pipe is written directly."""
    if output is None or (output.exists() and not output.is_file()):
        yield output
        return
    output = output.resolve()
    partial = output.with_name(f".{output.name}.{secrets.token_hex(4)}.partial")
    try:
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        yield partial
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)


def _open_sink(stack: ExitStack, form: Format, output: Path | None) -> Sink:
    if form is Format.PARQUET:
        if output is None:
            raise BadParameter("a Parquet file needs --output", param_hint="--format")
        return _ParquetSink(output)
    file = sys.stdout if output is None else stack.enter_context(output.open("w", encoding="utf-8", newline=""))
    return _JsonLines(file) if form is Format.JSONL else _Csv(file)


def _progress(output: Path | None) -> AbstractContextManager[Callable[[int, int], None]]:
    """Tells how far it is, where stderr is a terminal and a file is written."""
    return nullcontext(lambda done, total: None) if output is None else progress("tool calls")


class _JsonLines:
    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, rows: Iterable[questions_pb2.ToolCallRecord]) -> None:
        self._file.writelines(json_line(to_dict(row)) for row in rows)

    def close(self) -> None:
        self._file.flush()


class _Csv:
    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._writer = csv.DictWriter(file, list(FIELDS), quoting=csv.QUOTE_ALL)
        self._is_shown = file.isatty()
        self._writer.writeheader()

    def write(self, rows: Iterable[questions_pb2.ToolCallRecord]) -> None:
        self._writer.writerows(
            {name: self._cell(value) for name, value in to_flat_dict(row).items() if name in FIELDS} for row in rows
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
    def __init__(self, path: Path) -> None:
        try:
            import pyarrow  # an extra, loaded where it is asked for
            from pyarrow import parquet
        except ImportError:
            raise BadParameter(
                "needs the extra `parquet`, which is not installed", param_hint="--format parquet"
            ) from None
        types = {
            FieldDescriptor.TYPE_INT64: pyarrow.int64(),
            FieldDescriptor.TYPE_INT32: pyarrow.int32(),
            FieldDescriptor.TYPE_UINT32: pyarrow.uint32(),
            FieldDescriptor.TYPE_BOOL: pyarrow.bool_(),
        }
        self._schema = pyarrow.schema(
            [(name, types.get(field.type, pyarrow.string())) for name, field in FIELDS.items()]
        )
        self._table = pyarrow.Table.from_pylist
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")

    def write(self, rows: Iterable[questions_pb2.ToolCallRecord]) -> None:
        self._writer.write_table(self._table([to_flat_dict(row) for row in rows], schema=self._schema))

    def close(self) -> None:
        self._writer.close()
