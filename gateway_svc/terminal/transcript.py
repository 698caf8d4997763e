"""The command transcript: what was said in a session, of a running gateway."""

import sys
from collections.abc import Iterator
from typing import Any

from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.terminal.calling import (
    DEFAULT_TARGET,
    GRPC_TIMEOUT_SECONDS,
    Json,
    Target,
    awaited,
    call_gateway,
    err,
    named_session,
    out,
    print_json,
)
from service_kit.printable import PlainText, printable
from service_kit.terminal.ids import SessionId
from service_kit.terminal.printing import Text

PAGE = 100


def transcript(session: SessionId, as_json: Json = False, target: Target = DEFAULT_TARGET) -> None:
    """Print what was said in a session of yours: it is content, so mind who reads it."""
    request = pb.GetTranscriptRequest(session_id=named_session(target, session, "SESSION"), page_size=PAGE)
    anything = False
    while True:
        page = call_gateway(
            target,
            lambda stub, metadata: awaited(
                stub.GetTranscript(request, timeout=GRPC_TIMEOUT_SECONDS, metadata=metadata)
            ),
        )
        for entry in page.entries:
            anything = True
            print_json(entry) if as_json else _print(entry)
        sys.stdout.flush()
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    if not anything:
        err.print("nothing was said in this session yet", style="yellow")


def _print(entry: pb.TranscriptEntry) -> None:
    for who, text, style in _parts(entry):
        out.print(Text(who, style=style))
        sys.stdout.write(PlainText().feed(text) + "\n\n")
    if entry.left_out_bytes:
        err.print(f"{entry.left_out_bytes:,} bytes more are left out", style="yellow")


def _parts(entry: pb.TranscriptEntry) -> Iterator[tuple[str, str, str]]:
    """Who said what, and the style of who."""
    said: Any = getattr(entry, entry.WhichOneof("entry") or "unreadable")
    match entry.WhichOneof("entry"):
        case "user_text":
            yield "user", said, "bold"
        case "model_answer":
            if said.thinking:
                yield "model, thinking", said.thinking, "dim"
            if said.text:
                yield "model", said.text, "bold"
            for call in said.tool_calls:
                yield f"calls {printable(call.tool_name)}", call.arguments, "cyan"
        case "tool_text":
            yield f"{printable(said.tool_name)} gives", said.text, "cyan"
        case _:
            yield "cannot be read", said or "it is of a kind that this version does not know", "red"
