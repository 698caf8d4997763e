"""What verifying found, as text or JSON."""

from typing import Any

from audit_svc.ledger.columns import MAX_TIME_MS
from audit_svc.seal.outside.stamps import Stamp
from audit_svc.seal.verify import Report
from audit_svc.terminal.running import say
from recording.transparency.cosignature import Cosignature
from service_kit.terminal.command import echo
from service_kit.terminal.printing import Printer, Sentence
from service_kit.times import show_time

out = Printer()


def show(report: Report, place: str, *, own_key: bool, as_json: bool) -> None:
    checkpoint = report.checkpoint
    fields = {
        "verified": not report.problems,
        "origin": checkpoint.origin if checkpoint else "",
        "leaves": checkpoint.size if checkpoint else 0,
        "rows_compared": report.compared,
        "rows": report.rows,
        "removed": report.removed,
        "erased": report.erased,
        "lost_by_restores": report.lost,
        "restores": [{"by": each.by, "reason": each.reason, "lost": dict(each.lost)} for each in report.restores],
        "unsealed": report.unsealed,
        "witnesses": told_witnesses(report.witnesses),
        "timestamps": [
            {"leaves": stamp.leaves, "at": _time_of(stamp), "authority": stamp.authority} for stamp in report.stamps
        ],
        "unchecked_timestamps": report.unchecked_stamps,
        "problems": report.problems,
    }
    if as_json:
        say("", fields, as_json=True)
        return
    for problem in report.problems:
        _print(f"wrong  {problem}")
    if checkpoint:
        _print(f"log    {checkpoint.origin}, {checkpoint.size} leaves")
        echo(f"seal   {place}")  # whole, to be copied
    if checkpoint and not report.compared:
        _print(f"rows   not compared: {'the log itself is wrong' if report.problems else 'that is the log alone'}")
    elif checkpoint:
        said = f"{report.erased} of them without texts that were erased, " if report.erased else ""
        _print(
            f"rows   {report.rows} as they were sealed, {said}{report.removed} pruned, {report.lost} lost by restores"
        )
    for witness in told_witnesses(report.witnesses):
        _print(f"seen   by {witness['name']}: {witness['leaves']} leaves, at {witness['at']}")
    for stamp in report.stamps[:1] + report.stamps[1:][-1:]:
        _print(f"time   {stamp.leaves} leaves existed at {_time_of(stamp)}, by {stamp.authority}")
    if len(report.stamps) > 2:
        _print(f"       and {len(report.stamps) - 2} more time-stamps between: --json has all")
    if report.unchecked_stamps:
        _print(
            f"note   {report.unchecked_stamps} time-stamps were not checked: name the authority's CA by --timestamp-ca"
        )
    for kind, rows in report.unsealed.items():
        _print(f"note   not sealed yet: {kind} {rows}")
    for change in report.key_changes:
        what = "is the key beside" if change.act == "rotate" else "is the key without"
        _print(f"note   {change.key} {what} {change.old}, by {change.by}: {change.reason}")
    for restore in report.restores:
        _print(f"note   restored by {restore.by}: {restore.reason}")
    if own_key:
        _print(
            "note   checked with the key beside it, which anyone who can write there could have replaced:"
            " --key takes one that you keep elsewhere"
        )


def _print(line: str) -> None:
    """A line that goes on below what stands behind its first word."""
    out.print(Sentence(line, beneath=7))


def _time_of(stamp: Stamp) -> str:
    return show_time(int(stamp.at.timestamp() * 1000))


def told_witnesses(seen: list[tuple[Cosignature, int]]) -> list[dict[str, Any]]:
    at_ms = [min(cosignature.seconds * 1000, MAX_TIME_MS) for cosignature, _ in seen]
    return [
        {"name": cosignature.witness.name, "leaves": leaves, "at": show_time(at)}
        for (cosignature, leaves), at in zip(seen, at_ms, strict=True)
    ]
