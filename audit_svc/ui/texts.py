"""What pages show of rows: text that others wrote is shown as it is and never obeyed; times, money and sizes."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from audit_svc.terminal.plain import enum_name
from audit_svc.terminal.rows import is_uncounted, took
from audit_svc.terminal.running import size
from service_kit.printable import printable
from service_kit.terminal.printing import duration

FINE = frozenset({"succeeded", "dry_run"})
EXCERPT = 600
"""Characters of a text in which another was found: of a longer one, those around the first place."""
SHORT_ID = 13
"""Characters of an id in a list: of a UUIDv7 its time, and the beginning of what is random."""


def environment() -> Environment:
    """The templates. What is no text of ours is escaped twice: for a browser, and what a reader would not see."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    made.filters |= {
        "day": lambda ms: datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d"),
        "count": lambda number: f"{number:,}",
        "duration": duration,
        "exact": lambda text: Markup(escape(text)),  # noqa: S704 - it is escaped; for what a form sends back
        "marked": marked,
        "money": money,
        "moment": moment,
        "named": named,
        "short": short,
        "size": size,
        "took": took,
    }
    made.tests["uncounted"] = is_uncounted
    made.globals |= {"link": link, "outcome": outcome, "is_bad": is_bad}
    return made


def link(path: str, **fields: Any) -> str:
    """An address of ours without fields that are None or empty, but with `by`, whose empty value means something."""
    given = [(name, value) for name, value in fields.items() if value is not None and (value != "" or name == "by")]
    return path + (f"?{urlencode(given, doseq=True)}" if given else "")


def iso(ms: int) -> str:
    """A time in UTC, as programs read it."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(ms: int) -> Markup:
    """A time in UTC, for people and for programs."""
    at = datetime.fromtimestamp(ms / 1000, UTC)
    return Markup('<time datetime="{}">{}</time>').format(iso(ms), at.strftime("%Y-%m-%d %H:%M:%S"))


def marked(text: str, found: str) -> Markup:
    """A text, or a part of a long one, with each place marked that has what was found; upper and lower case of ASCII
    are alike, as they are to the ledger. Both are escaped.
    """
    lowered, sought = _lower(text), _lower(found)
    at = lowered.find(sought) if sought else -1
    begin = max(0, at - EXCERPT // 4) if len(text) > EXCERPT else 0
    end = max(begin + EXCERPT, at + len(sought))
    shown, place = Markup() + ("…" if begin else ""), begin
    while at >= 0 and at + len(sought) <= end:
        shown += Markup("{}<mark>{}</mark>").format(printable(text[place:at]), printable(text[at : at + len(sought)]))
        place = at + len(sought)
        at = lowered.find(sought, place)
    return shown + printable(text[place:end]) + ("…" if end < len(text) else "")


def _lower(text: str) -> str:
    return text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def money(micros: int) -> str:
    """Millionths of a US dollar as dollars: cents where there are dollars, and else as much as says something."""
    dollars = micros / 1_000_000
    return f"${dollars:,.2f}" if dollars >= 1 or not micros else f"${dollars:.6f}".rstrip("0")


def named(message: Any, field: str) -> str:
    """The name of an enum's value, as the commands print it; empty when it is not set."""
    return enum_name(message.DESCRIPTOR.fields_by_name[field], getattr(message, field)).replace("_", " ")


def outcome(row: Any) -> str:
    """How a call ended, with the code or status that it ended with."""
    parts = [named(row, "outcome") or "ended"]
    parts += [f"exit {row.exit_code}"] if row.HasField("exit_code") else []
    parts += [f"HTTP {row.http_status}"] if row.HasField("http_status") else []
    return " · ".join(parts)


def is_bad(row: Any) -> bool:
    """Whether a call did not do its work; an outcome that is not known is never a success."""
    name = enum_name(row.DESCRIPTOR.fields_by_name["outcome"], row.outcome)
    return name not in FINE or bool(row.exit_code) or row.http_status >= 400


def short(text: str) -> str:
    """An id as lists show it."""
    return text if len(text) <= SHORT_ID + 1 else text[:SHORT_ID] + "…"


def _visible(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
