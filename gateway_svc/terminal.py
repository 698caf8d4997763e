"""Commands for people, which call a running gateway."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterable
from typing import Annotated, Any, TypeVar

import grpc
from google.protobuf.json_format import MessageToDict
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

from gateway_svc.settings import ListenSettings
from recording.channel.token import Metadata
from service_kit.client import current_access, open_channel, why_away
from service_kit.errors import code_name
from service_kit.printable import PlainText, json_text, printable
from service_kit.probe import probe
from service_kit.settings import load_settings
from service_kit.terminal.command import BadParameter, Exit, Option, echo
from service_kit.terminal.printing import Printer, Table, Wide, counted

T = TypeVar("T")

Target = Annotated[str, Option(envvar="GATEWAY_LISTEN", help="The gateway's address, host:port.")]
Json = Annotated[bool, Option("--json", help="Print one JSON object a line.")]
DEFAULT_TARGET = "127.0.0.1:50051"
EXIT_FAILED = 1
EXIT_CANCELLED = 130
GRPC_TIMEOUT_SECONDS = 10.0

out = Printer()
err = Printer(stderr=True)


def run(
    prompt: str,
    engine: Annotated[str, Option(help="The engine; the default when not given.")] = "",
    model: Annotated[str, Option(help="The model; the engine's default when not given.")] = "",
    session: Annotated[str, Option(help="The session to continue; a new one when not given.")] = "",
    label: Annotated[list[str] | None, Option(help="key=value, for attribution; may be repeated.")] = None,
    max_cost: Annotated[float | None, Option(min=0, help="US dollars that the turn may cost.")] = None,
    fallback: Annotated[str, Option(help="ENGINE[:MODEL] to use when the engine is down or rate-limited.")] = "",
    shadow: Annotated[list[str] | None, Option(help="ENGINE[:MODEL] to compare with; may be repeated.")] = None,
    as_json: Json = False,
    target: Target = DEFAULT_TARGET,
) -> None:
    """Give an agent a task and watch it work."""
    settings = pb.SessionSettings(
        labels=dict(_split_label(text) for text in label or []),
        fallback=_choice(fallback) if fallback else None,
        shadows=map(_choice, shadow or []),
    )
    if session and settings.ListFields():
        raise BadParameter("--label, --fallback and --shadow are for a new session", param_hint="--session")
    request = pb.RunTurnRequest(
        input=prompt,
        engine=engine,
        model=model,
        max_cost_micros=None if max_cost is None else round(max_cost * 1_000_000),
    )
    if session:
        request.session_id = session
    else:
        request.new_session.CopyFrom(settings)
    show = print_json if as_json else TurnPrinter().show

    async def stream(stub: "gateway_pb2_grpc.GatewayServiceAsyncStub", metadata: Metadata) -> int:
        stop_reason = pb.STOP_REASON_UNSPECIFIED
        async for event in stub.RunTurn(request, metadata=metadata):
            show(event)
            stop_reason = event.turn_finished.stop_reason
        return stop_reason

    if call_gateway(target, stream) == pb.STOP_REASON_FAILED:
        raise Exit(EXIT_FAILED)


def change(
    session: str,
    engine: Annotated[str | None, Option(help="The engine; an empty one is the default.")] = None,
    model: Annotated[str | None, Option(help="The model; an empty one is the engine's default.")] = None,
    label: Annotated[list[str] | None, Option(help="key=value, in the place of all labels; repeatable.")] = None,
    max_cost: Annotated[float | None, Option(min=0, help="US dollars that the session may cost.")] = None,
    fallback: Annotated[str, Option(help="ENGINE[:MODEL] to use when the engine is down or rate-limited.")] = "",
    shadow: Annotated[list[str] | None, Option(help="ENGINE[:MODEL], in the place of all; repeatable.")] = None,
    without: Annotated[list[str] | None, Option(help="A setting to take away, such as max_cost_micros.")] = None,
    target: Target = DEFAULT_TARGET,
) -> None:
    """Change what the next turns of a session run with, and print the session as one JSON object."""
    given: dict[str, Any] = {
        "engine": engine,
        "model": model,
        "labels": dict(map(_split_label, label)) if label else None,
        "max_cost_micros": None if max_cost is None else round(max_cost * 1_000_000),
        "fallback": _choice(fallback) if fallback else None,
        "shadows": list(map(_choice, shadow)) if shadow else None,
    }
    named = {name: value for name, value in given.items() if value is not None}
    request = pb.UpdateSessionRequest(session_id=session, settings=pb.SessionSettings(**named))
    request.update_mask.paths.extend([*named, *(without or [])])
    response = call_gateway(
        target,
        lambda stub, metadata: _await(stub.UpdateSession(request, timeout=GRPC_TIMEOUT_SECONDS, metadata=metadata)),
    )
    print_json(response.session)


def engines(as_json: Json = False, wide: Wide = False, target: Target = DEFAULT_TARGET) -> None:
    """List the configured engines."""
    response = call_gateway(
        target,
        lambda stub, metadata: _await(
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
        lambda stub, metadata: _await(stub.ListSessions(request, timeout=GRPC_TIMEOUT_SECONDS, metadata=metadata)),
    )
    if as_json:
        for session in response.sessions:
            print_json(session)
        return
    if not response.sessions:
        err.print("the gateway keeps no session", style="yellow")
        return
    out.print(sessions_table(response.sessions), wide=wide)


def delete(session: str, target: Target = DEFAULT_TARGET) -> None:
    """Delete a session and all that was said in it; the ledger keeps its rows."""
    request = pb.DeleteSessionRequest(session_id=session)
    call_gateway(
        target,
        lambda stub, metadata: _await(stub.DeleteSession(request, timeout=GRPC_TIMEOUT_SECONDS, metadata=metadata)),
    )


def health(
    target: Target = DEFAULT_TARGET,
    timeout: Annotated[float, Option(help="Seconds to wait for the answer.")] = 3.0,
    live: Annotated[bool, Option("--live", help="Succeed if it answers at all, even that it cannot serve.")] = False,
) -> None:
    """Ask a running gateway whether it serves; the exit code is 0 if it does, else 1."""
    serves, said = probe(target, timeout, current_access(), load_settings(ListenSettings).server_files, live=live)
    echo(said, err=not serves)
    raise Exit(0 if serves else EXIT_FAILED)


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
    )
    for session in sessions:
        table.add_row(
            printable(session.id),
            printable(session.settings.engine),
            printable(session.settings.model),
            common_pb2.SessionStatus.Name(session.status).removeprefix("SESSION_STATUS_").lower(),
            str(session.turns),
            str(session.tool_calls),
            f"{session.usage.input_tokens}/{session.usage.output_tokens}",
            _money(session.usage),
            " ".join(f"{printable(key)}={printable(value)}" for key, value in sorted(session.settings.labels.items())),
        )
    return table


class TurnPrinter:
    """Shows a turn as it runs: the answer on stdout, everything else on stderr."""

    def __init__(self) -> None:
        self._in_text = False
        self._session_id = ""
        self._text = PlainText()

    def show(self, event: pb.TurnEvent) -> None:
        match event.WhichOneof("event"):
            case "turn_accepted":
                self._session_id = event.turn_accepted.session_id
            case "turn_started":
                started = event.turn_started
                err.print(printable(f"session {self._session_id} · {started.engine} · {started.model}"), style="dim")
            case "text_delta":
                self._in_text = True
                sys.stdout.write(self._text.feed(event.text_delta.text))
                sys.stdout.flush()
            case "tool_call_started":
                self._end_text()
                call = event.tool_call_started
                err.print(printable(f"▸ {call.tool_name} {call.args_summary}"), style="cyan")
                if call.HasField("pending"):
                    waiting = f"  waiting for an answer (id {call.tool_call_id})"
                    err.print(printable(waiting), style="yellow")
            case "tool_call_finished":
                self._end_text()
                self._show_finished(event.tool_call_finished)
            case "rate_limit_changed":
                if event.rate_limit_changed.status > pb.RATE_LIMIT_STATUS_ALLOWED:
                    self._end_text()
                    self._show_limit(event.rate_limit_changed)
            case "warning":
                self._end_text()
                err.print(printable(f"  {event.warning.message}"), style="yellow")
            case "engine_changed":
                self._end_text()
                changed = event.engine_changed
                line = f"  {changed.engine} · {changed.model} continues: {changed.reason}"
                err.print(printable(line), style="yellow")
            case "turn_finished":
                self._end_text()
                finished = event.turn_finished
                if finished.HasField("error"):
                    _print_error(code_name(finished.error), finished.error.message)
                reason = pb.StopReason.Name(finished.stop_reason).removeprefix("STOP_REASON_").lower()
                err.print(
                    f"{reason} · {counted(finished.usage.requests, 'model request')} · "
                    f"{counted(finished.tool_calls, 'tool call')} · "
                    f"{finished.usage.input_tokens} tokens in, {finished.usage.output_tokens} out · "
                    f"{_money(finished.usage)} · {finished.duration_ms} ms",
                    style="dim",
                )

    def _show_finished(self, finished: pb.ToolCallFinished) -> None:
        outcome = common_pb2.Outcome.Name(finished.outcome).removeprefix("OUTCOME_").lower()
        parts = [outcome, f"{finished.duration_ms} ms"]
        if finished.HasField("exit_code"):
            parts.append(f"exit code {finished.exit_code}")
        if finished.HasField("http_status"):
            parts.append(f"HTTP {finished.http_status}")
        if finished.HasField("error"):
            parts.append(finished.error)
        style = "green" if finished.outcome == common_pb2.OUTCOME_SUCCEEDED else "red"
        err.print(printable(f"  {finished.tool_name}: {' · '.join(parts)}"), style=style)

    def _show_limit(self, limit: pb.RateLimitChanged) -> None:
        near = "is near" if limit.status == pb.RATE_LIMIT_STATUS_NEAR else "is reached"
        used = f" · {limit.utilization:.0%} used" if limit.HasField("utilization") else ""
        err.print(printable(f"  the limit {limit.window} {near}{used}"), style="yellow")

    def _end_text(self) -> None:
        if self._in_text:
            self._text.end()
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._in_text = False


def _split_label(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign:
        raise BadParameter(f"{text!r} is not key=value", param_hint="--label")
    return key, value


def _choice(text: str) -> pb.EngineChoice:
    engine, _, model = text.partition(":")
    return pb.EngineChoice(engine=engine, model=model)


def _print_error(code: str, message: str) -> None:
    err.print(f"{code}: {printable(message)}", style="red")


def _money(usage: common_pb2.Usage) -> str:
    known = f"${usage.known_cost_micros / 1_000_000:.6f}"
    if not usage.unpriced_requests:
        return known
    return f"at least {known}" if usage.known_cost_micros else "cost unknown"


def print_json(message: Any) -> None:
    sys.stdout.write(json_text(MessageToDict(message, preserving_proto_field_name=True), ascii_only=True) + "\n")
    sys.stdout.flush()


async def _await(call: Any) -> Any:
    return await call


def call_gateway(
    target: str,
    work: Callable[[Any, Metadata], Coroutine[Any, Any, T]],
    stub: Callable[[Any], Any] = gateway_pb2_grpc.GatewayServiceStub,
) -> T:
    """Runs work with a stub of the gateway at target, and the metadata of its calls.

    If a call fails, prints the error and exits.
    """

    async def connected() -> T:
        channel, metadata = open_channel(target)
        async with channel:
            return await work(stub(channel), metadata)

    try:
        return asyncio.run(connected())
    except grpc.aio.AioRpcError as error:
        details = error.details() or ""
        is_away = error.code() == grpc.StatusCode.UNAVAILABLE
        _print_error(error.code().name, details + (why_away(target, "a gateway", details) if is_away else ""))
        raise Exit(EXIT_FAILED) from None
    except KeyboardInterrupt:
        raise Exit(EXIT_CANCELLED) from None
