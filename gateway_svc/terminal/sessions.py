"""The commands change, engines, sessions, delete and health."""

from collections.abc import Iterable
from typing import Annotated, Any

from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.settings import ListenSettings
from gateway_svc.terminal.calling import (
    DEFAULT_TARGET,
    GRPC_TIMEOUT_SECONDS,
    SETTINGS,
    Json,
    Target,
    awaited,
    call_gateway,
    choice,
    err,
    money,
    named_session,
    out,
    print_json,
    split_label,
)
from service_kit.printable import printable
from service_kit.settings import load_settings
from service_kit.terminal.command import BadParameter, Option
from service_kit.terminal.health import Live, Timeout, tell_health
from service_kit.terminal.ids import SessionId
from service_kit.terminal.printing import Table, Wide, print_fields
from service_kit.unanswered import GATEWAY


def change(
    session: SessionId,
    engine: Annotated[str | None, Option(help="The engine; an empty one is the default.")] = None,
    model: Annotated[str | None, Option(help="The model; an empty one is the engine's default.")] = None,
    label: Annotated[list[str] | None, Option(help="key=value, in the place of all labels; repeatable.")] = None,
    max_cost: Annotated[float | None, Option(min=0, help="US dollars that the session may cost.")] = None,
    fallback: Annotated[str, Option(help="ENGINE[:MODEL] to use when the engine is down or rate-limited.")] = "",
    shadow: Annotated[list[str] | None, Option(help="ENGINE[:MODEL], in the place of all; repeatable.")] = None,
    without: Annotated[
        list[str] | None, Option(help=f"What to take away: {', '.join(SETTINGS)}; may be repeated.")
    ] = None,
    as_json: Json = False,
    target: Target = DEFAULT_TARGET,
) -> None:
    """Change what the next turns of a session run with, and print the session as one JSON object in any case."""
    given: dict[str, Any] = {
        "engine": engine,
        "model": model,
        "labels": dict(map(split_label, label)) if label else None,
        "max_cost_micros": None if max_cost is None else round(max_cost * 1_000_000),
        "fallback": choice(fallback) if fallback else None,
        "shadows": list(map(choice, shadow)) if shadow else None,
    }
    named = {name: value for name, value in given.items() if value is not None}
    if not named and not without:
        raise BadParameter("name what is to change: --engine, --max-cost and so on, or --without")
    for name in without or []:
        if name not in SETTINGS and name not in SETTINGS.values():
            raise BadParameter(f"{name!r} is not one of {', '.join(SETTINGS)}", param_hint="--without")
    session_id = named_session(target, session, "SESSION")
    request = pb.UpdateSessionRequest(session_id=session_id, settings=pb.SessionSettings(**named))
    request.update_mask.paths.extend([*named, *(SETTINGS.get(name, name) for name in without or [])])
    response = call_gateway(
        target,
        lambda stub, metadata: awaited(stub.UpdateSession(request, timeout=GRPC_TIMEOUT_SECONDS, metadata=metadata)),
    )
    print_json(response.session)


def engines(as_json: Json = False, wide: Wide = False, target: Target = DEFAULT_TARGET) -> None:
    """List the configured engines."""
    response = call_gateway(
        target,
        lambda stub, metadata: awaited(
            stub.ListEngines(pb.ListEnginesRequest(), timeout=GRPC_TIMEOUT_SECONDS, metadata=metadata)
        ),
    )
    if as_json:
        for engine in response.engines:
            print_json(engine)
        return
    out.print(engines_table(response.engines), wide=wide)


def sessions(
    limit: Annotated[int, Option(min=1, max=1000, help="How many, the newest first.")] = 20,
    as_json: Json = False,
    wide: Wide = False,
    target: Target = DEFAULT_TARGET,
) -> None:
    """List the sessions that the gateway keeps, or do something with one."""
    request = pb.ListSessionsRequest(page_size=limit)
    response = call_gateway(
        target,
        lambda stub, metadata: awaited(stub.ListSessions(request, timeout=GRPC_TIMEOUT_SECONDS, metadata=metadata)),
    )
    if as_json:
        for session in response.sessions:
            print_json(session)
    elif response.sessions:
        out.print(sessions_table(response.sessions), wide=wide)
    if not response.sessions:
        err.print("the gateway keeps no session", style="yellow")


def delete(session: SessionId, as_json: Json = False, target: Target = DEFAULT_TARGET) -> None:
    """Delete a session and all that was said in it; the ledger keeps its rows."""
    request = pb.DeleteSessionRequest(session_id=named_session(target, session, "SESSION"))
    call_gateway(
        target,
        lambda stub, metadata: awaited(stub.DeleteSession(request, timeout=GRPC_TIMEOUT_SECONDS, metadata=metadata)),
    )
    if as_json:
        print_fields({"session_id": request.session_id, "deleted": True})


def health(
    target: Target = DEFAULT_TARGET,
    timeout: Timeout = 3.0,
    live: Live = False,
    as_json: Json = False,
) -> None:
    """Ask a running gateway whether it serves; the exit code is 0 if it does, else 1."""
    tell_health(target, timeout, load_settings(ListenSettings).server_files, GATEWAY, live=live, as_json=as_json)


def engines_table(engines: Iterable[pb.Engine]) -> Table:
    """Engines, one per line."""
    table = Table("engine", "default model", "default", "commands", least=("commands",))
    for engine in engines:
        table.add_row(
            printable(engine.name),
            printable(engine.default_model),
            "yes" if engine.is_default else "",
            "unconfined" if engine.unconfined else printable(engine.jail),
        )
    return table


def sessions_table(sessions: Iterable[pb.Session]) -> Table:
    """Sessions, one per line."""
    table = Table(
        *("session", "engine", "model", "status", "turns", "tool calls", "tokens in/out", "cost", "labels"),
        least=("tokens in/out", "turns", "tool calls", "engine", "labels", "model"),
        text="labels",
        ids=["session"],
    )
    for session in sessions:
        table.add_row(
            printable(session.id),
            printable(session.settings.engine),
            printable(session.settings.model),
            common_pb2.SessionStatus.Name(session.status).removeprefix("SESSION_STATUS_").lower(),
            str(session.turns),
            str(session.tool_calls),
            f"{session.usage.input_tokens:,}/{session.usage.output_tokens:,}",
            money(session.usage),
            " ".join(f"{printable(key)}={printable(value)}" for key, value in sorted(session.settings.labels.items())),
        )
    return table
