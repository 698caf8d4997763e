"""The commands stop, stops and resume: for who must stop agents at once."""

from collections.abc import Iterable
from typing import Annotated, Any

import grpc
from google.protobuf.message import Message
from onrecord.gateway.v1 import control_pb2 as pb
from onrecord.gateway.v1 import control_pb2_grpc

from gateway_svc.stopping.stops import END_SECONDS
from gateway_svc.terminal.calling import (
    DEFAULT_TARGET,
    GRPC_TIMEOUT_SECONDS,
    Json,
    Target,
    call_gateway,
    err,
    out,
    print_json,
    split_label,
)
from recording.channel.token import Metadata
from service_kit.printable import printable
from service_kit.producing.stop import scope_text, what_lifts
from service_kit.terminal.command import Argument, BadParameter, Filled, Option
from service_kit.terminal.failures import Failed, as_typed
from service_kit.terminal.ids import LAST, OR_LAST, is_whole, too_short, whole_id
from service_kit.terminal.messages import set_fields
from service_kit.terminal.printing import Table, Wide, counted, print_fields
from service_kit.times import show_time

Reason = Annotated[str, Option(help="Why; told to those who are refused, and kept on the record.")]

StopId = Annotated[
    str,
    Argument(metavar="ID", help="The id that `stops` shows, its first or last characters, or @last.", empty=OR_LAST),
]
WhyResumed = Annotated[str, Option(help="Why; kept on the record.")]


class NotInForce(Failed):
    """The stop that is to be lifted is not in force: it was lifted before, or there was none."""

    def __init__(self, why: str, code: int = 1, cause: BaseException | None = None, end: str = "") -> None:
        lists = "`gateway-svc stops` lists those in force, `audit-svc controls --kind resume` those that were lifted"
        super().__init__(f"{why}: {lists}{end}", code, cause)


def stop(
    reason: Reason,
    everything: Annotated[bool, Option("--everything", help="Stop all turns.")] = False,
    principal: Annotated[str, Filled(help="Stop the turns of this caller.")] = "",
    agent: Annotated[
        str, Filled(help="Stop the turns of this agent, by the name that the client or the engine claims.")
    ] = "",
    engine: Annotated[str, Filled(help="Stop the turns on this engine.")] = "",
    tool: Annotated[str, Filled(help="Stop the calls of tools with such names: bash, or files.*")] = "",
    label: Annotated[str, Filled(metavar="KEY=VALUE", help="Stop the turns of sessions with this label.")] = "",
    let_calls_end: Annotated[
        bool, Option("--let-calls-end", help="Let tool calls that run go on to their end; do not wait for them.")
    ] = False,
    as_json: Json = False,
    target: Target = DEFAULT_TARGET,
) -> None:
    """Stop agents: end what runs, refuse what comes, until `resume` lifts the stop.

    Turns and tool calls are stopped, wherever sessions are shared. Give one thing that is to be stopped. Takes the role
    admin. Exit code 1 if something still runs after 10 seconds.
    """
    named = {"principal": principal, "agent": agent, "engine": engine, "tool": tool}
    given = {name: value for name, value in named.items() if value}
    key, labelled = split_label(label) if label else ("", "")
    if everything + bool(label) + len(given) != 1:
        raise BadParameter("give one of --everything, --principal, --agent, --engine, --tool and --label KEY=VALUE")
    scope = pb.StopScope(everything=pb.Everything() if everything else None)
    for name, value in given.items():
        setattr(scope, name, value)
    if label:
        scope.label.key, scope.label.value = key, labelled
    request = pb.StopAgentsRequest(scope=scope, reason=reason, let_running_calls_end=let_calls_end)

    answer: pb.StopAgentsResponse = _ask(target, "StopAgents", request, GRPC_TIMEOUT_SECONDS + END_SECONDS)
    if as_json:
        counts = ("ended_turns", "ended_tool_calls", "still_running")  # also where one is 0
        print_fields({**set_fields(answer), **{name: getattr(answer, name) for name in counts}})
    else:
        calls = counted(answer.ended_tool_calls, "tool call")
        begun = "already stopped" if answer.was_in_force else "stopped"
        out.print(f"{begun}: {_line(answer.stop)}")
        out.print(f"ended: {counted(answer.ended_turns, 'turn')}, and {calls} of turns that go on")
        out.print(f"still running: {answer.still_running}")
    if answer.was_in_force:
        err.print("this was stopped already: the stop in force stands, with its own reason", style="yellow")
    if answer.is_unknown:
        kind = scope.WhichOneof("target")
        err.print(
            f"no {kind} of that name is known here: is it spelt right? The stop holds where there is one, such as for "
            "agents of others",
            style="yellow",
        )
    elif not (answer.ended_turns or answer.ended_tool_calls or answer.still_running):
        err.print(
            "it reached nothing that runs at the gateway: it stands for what comes, until it is lifted", style="yellow"
        )
    if not as_json:
        err.print(as_typed(what_lifts(printable(answer.stop.id))), style="dim")
    if answer.still_running and not let_calls_end:
        raise Failed(f"{answer.still_running} had not ended {END_SECONDS:g} s later: give the same command again")


def stops(as_json: Json = False, wide: Wide = False, target: Target = DEFAULT_TARGET) -> None:
    """List the stops in force."""
    found = _ask(target, "ListStops", pb.ListStopsRequest()).stops
    if as_json:
        for one in found:
            print_json(one)
    elif found:
        out.print(stops_table(found), wide=wide)
    if not found:
        err.print("no stop is in force", style="yellow")


def stops_table(found: Iterable[pb.Stop]) -> Table:
    """Stops, one per line."""
    table = Table(
        "since", "by", "stop", "scope", "reason", least=("by", "reason"), text="reason", ids=["stop"], wraps=True
    )
    for one in found:
        texts = (one.principal, one.id, scope_text(one.scope), one.reason)
        table.add_row(out.print_time(one.at_ms), *map(printable, texts))
    return table


def resume(
    stop_id: StopId,
    reason: WhyResumed,
    as_json: Json = False,
    target: Target = DEFAULT_TARGET,
) -> None:
    """Lift a stop, at all gateways that share it. What it ended stays ended."""
    if not is_whole(stop_id):
        in_force = _ask(target, "ListStops", pb.ListStopsRequest()).stops
        if stop_id == LAST and not in_force:
            raise NotInForce("no stop is in force")
        newest_first = sorted(in_force, key=lambda one: one.at_ms, reverse=True)
        stop_id = whole_id(stop_id, [one.id for one in newest_first], "ID")
    try:
        answer: pb.ResumeResponse = _ask(target, "Resume", pb.ResumeRequest(stop_id=stop_id, reason=reason))
    except Failed as failed:
        if isinstance(failed.cause, grpc.aio.AioRpcError) and failed.cause.code() is grpc.StatusCode.NOT_FOUND:
            raise NotInForce(failed.sentence, failed.code, failed.cause, too_short(stop_id)) from None
        raise
    if answer.was_lifted:
        raise NotInForce(f"the stop {stop_id} was already lifted")
    if as_json:
        print_fields({"stop_id": stop_id, "lifted": True, **set_fields(answer)})
    else:
        out.print(f"lifted: {_line(answer.stop) if answer.HasField('stop') else printable(stop_id)}")


def _ask(target: str, rpc: str, request: Message, seconds: float = GRPC_TIMEOUT_SECONDS) -> Any:
    async def ask(stub: Any, metadata: Metadata) -> Any:
        return await getattr(stub, rpc)(request, timeout=seconds, metadata=metadata)

    return call_gateway(target, ask, control_pb2_grpc.ControlServiceStub)


def _line(stop: pb.Stop) -> str:
    since = show_time(stop.at_ms)
    return printable(f"{stop.id}  {since}  {stop.principal or '-'}  {scope_text(stop.scope)}  {stop.reason}")
