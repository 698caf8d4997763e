"""What the record knows of stops: which came while a session went on, and what lifts those that are in force."""

import re
from collections.abc import Collection, Iterator

from onrecord.audit.v1 import audit_pb2, questions_pb2

from audit_svc.terminal.client import LOOKED_THROUGH, Client, all_rows
from service_kit.printable import printable
from service_kit.terminal.failures import as_typed


def controls_of(client: Client, record: questions_pb2.SessionRecord) -> list[questions_pb2.ControlRecord]:
    """What who recorded the session did to agents while it went on, the oldest first."""
    wanted = questions_pb2.ControlFilter(
        created_from_ms=record.session.created_at_ms,
        created_before_ms=max(record.session.created_at_ms, record.session.updated_at_ms) + 1,
        recorded_by=record.receipt.recorded_by,
    )
    request = questions_pb2.ListControlsRequest(filter=wanted)
    return all_rows(client, "ListControls", request, "controls")[::-1]


def what_lifts_them(client: Client, texts: Collection[str]) -> Iterator[str]:
    """A sentence for each stop that is in force, and whose id stands in one of texts."""
    named = {word for text in texts if "stop" in text for word in re.findall(r"[\w-]+", text)}
    if not named:
        return
    from service_kit.producing.stop import what_lifts  # only where something was stopped: it takes long to load

    kinds = [audit_pb2.CONTROL_KIND_STOP, audit_pb2.CONTROL_KIND_RESUME]
    request = questions_pb2.ListControlsRequest(filter=questions_pb2.ControlFilter(kinds=kinds))
    lifted = set[str]()
    for record in all_rows(client, "ListControls", request, "controls", LOOKED_THROUGH):  # the newest first
        control = record.control
        if control.kind == audit_pb2.CONTROL_KIND_RESUME:
            lifted.add(control.stop_id)
        elif control.stop_id in named - lifted:
            yield as_typed(printable(f"{control.scope} is stopped: {what_lifts(control.stop_id)}"))
