"""The commands stop, stops and resume: for who must stop agents at once."""

from typing import Annotated

from onrecord.gateway.v1 import control_pb2 as pb
from onrecord.gateway.v1 import control_pb2_grpc

from gateway_svc.stopping.stop import scope_text
from gateway_svc.stopping.stops import END_SECONDS
from gateway_svc.terminal import (
    DEFAULT_TARGET,
    EXIT_FAILED,
    GRPC_TIMEOUT_SECONDS,
    Json,
    Target,
    err,
    out,
    print_json,
    run_call,
)
from service_kit.client import open_channel
from service_kit.printable import printable
from service_kit.terminal.command import Argument, BadParameter, Exit, Option
from service_kit.times import show_time

Reason = Annotated[str, Option(help="Why; told to those who are refused, and kept on the record.")]


def stop(
    reason: Reason,
    everything: Annotated[bool, Option("--everything", help="Stop all turns.")] = False,
    principal: Annotated[str, Option(help="Stop the turns of this caller.")] = "",
    agent: Annotated[
        str, Option(help="Stop the turns of this agent, by the name that the client or the engine claims.")
    ] = "",
    engine: Annotated[str, Option(help="Stop the turns on this engine.")] = "",
    tool: Annotated[str, Option(help="Stop the calls of tools with such names: bash, or files.*")] = "",
    label: Annotated[str, Option(metavar="KEY=VALUE", help="Stop the turns of sessions with this label.")] = "",
    let_calls_end: Annotated[
        bool, Option("--let-calls-end", help="Let tool calls that run go on to their end; do not wait for them.")
    ] = False,
    as_json: Json = False,
    target: Target = DEFAULT_TARGET,
) -> None:
    """Refuse turns and tool calls from now on, and end those that run, on this one gateway.

    Give one thing that is to be stopped. Takes the role admin. Exit code 1 if something still runs after 10 seconds.
    """
    named = {"principal": principal, "agent": agent, "engine": engine, "tool": tool}
    given = {name: value for name, value in named.items() if value}
    if everything + bool(label) + len(given) != 1 or (label and "=" not in label):
        raise BadParameter("give one of --everything, --principal, --agent, --engine, --tool and --label KEY=VALUE")
    scope = pb.StopScope(everything=pb.Everything() if everything else None)
    for name, value in given.items():
        setattr(scope, name, value)
    if label:
        scope.label.key, _, scope.label.value = label.partition("=")
    request = pb.StopAgentsRequest(scope=scope, reason=reason, let_running_calls_end=let_calls_end)

    async def ask() -> pb.StopAgentsResponse:
        channel, metadata = open_channel(target)
        async with channel:
            stub = control_pb2_grpc.ControlServiceStub(channel)
            seconds = GRPC_TIMEOUT_SECONDS + END_SECONDS
            answer: pb.StopAgentsResponse = await stub.StopAgents(request, timeout=seconds, metadata=metadata)
            return answer

    answer = run_call(ask(), target)
    if as_json:
        print_json(answer)
    else:
        ended = f"ended: {answer.ended_turns} turns, {answer.ended_tool_calls} tool calls"
        out.print(f"stopped: {_line(answer.stop)}; {ended}; still running: {answer.still_running}")
    if answer.still_running and not let_calls_end:
        err.print(f"{answer.still_running} had not ended {END_SECONDS:g} s later: give the same command again")
        raise Exit(EXIT_FAILED)


def stops(as_json: Json = False, target: Target = DEFAULT_TARGET) -> None:
    """List the stops in force."""

    async def ask() -> pb.ListStopsResponse:
        channel, metadata = open_channel(target)
        async with channel:
            stub = control_pb2_grpc.ControlServiceStub(channel)
            seconds = GRPC_TIMEOUT_SECONDS
            answer: pb.ListStopsResponse = await stub.ListStops(
                pb.ListStopsRequest(), timeout=seconds, metadata=metadata
            )
            return answer

    for one in run_call(ask(), target).stops:
        if as_json:
            print_json(one)
        else:
            out.print(_line(one))


def resume(
    stop_id: Annotated[str, Argument(metavar="ID", help="The id that `stops` shows.")],
    reason: Annotated[str, Option(help="Why; kept on the record.")],
    target: Target = DEFAULT_TARGET,
) -> None:
    """Lift a stop on this one gateway. What it ended stays ended."""

    async def ask() -> None:
        channel, metadata = open_channel(target)
        async with channel:
            stub = control_pb2_grpc.ControlServiceStub(channel)
            request = pb.ResumeRequest(stop_id=stop_id, reason=reason)
            await stub.Resume(request, timeout=GRPC_TIMEOUT_SECONDS, metadata=metadata)

    run_call(ask(), target)
    out.print(f"lifted: {printable(stop_id)}")


def _line(stop: pb.Stop) -> str:
    since = show_time(stop.at_ms)
    return printable(f"{stop.id}  {since}  {stop.principal or '-'}  {scope_text(stop.scope)}  {stop.reason}")
