"""`make demo`: starts both services, has an agent run real tools, and shows the rows in the ledger."""

import asyncio
import os
import shutil
import tempfile
import tomllib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import grpc
from onrecord.audit.v1 import audit_pb2, questions_pb2, questions_pb2_grpc
from onrecord.gateway.v1 import gateway_pb2, gateway_pb2_grpc

from audit_svc.terminal.rows import outcome_text
from audit_svc.terminal.running import size
from demo import claude_code
from demo.approval import TwoPeople
from demo.model_server import ModelServer
from demo.postgres import PostgresServer
from demo.processes import Service, start_service
from demo.script import Script
from gateway_svc.terminal.turn_printer import TurnPrinter
from recording.channel.options import CLIENT_OPTIONS
from recording.durations import known_duration_ms
from service_kit.terminal import program
from service_kit.terminal.command import Option
from service_kit.terminal.printing import Printer, Table, Text, duration

HERE = Path(__file__).resolve().parent
SECONDS_TO_ARRIVE = 60.0
SHOWN_ARGUMENTS = 24
"""The cells that arguments have on a terminal."""

console = Printer()
HAS_JAIL = shutil.which("bwrap") is not None
JAIL = (
    "in a sandbox, by bubblewrap"
    if HAS_JAIL
    else "without a sandbox: bubblewrap is not installed;\nthe scripted model's are harmless"
)
NEXT = """next: `make demo MODEL=ollama` has your own model do this;
`.venv/bin/onrecord up` starts services that stay (docs/first-ten-minutes.md)"""


@dataclass(frozen=True)
class Model:
    """A model server to run the demo with."""

    settings: dict[str, str]
    """The environment variables that point the gateway to it."""
    prompt: str
    calls: int = 1
    """The least number of tool calls to expect."""


@asynccontextmanager
async def scripted() -> AsyncIterator[Model]:
    """The scripted model server of this folder."""
    async with ModelServer(Script()) as server:
        text = (HERE / "script.toml").read_text(encoding="utf-8").replace("{base_url}", server.url)
        server.script = Script.model_validate(tomllib.loads(text))
        yield Model(
            settings={
                "GATEWAY_OLLAMA_URL": server.ollama_url,
                "GATEWAY_OLLAMA_MODEL": "scripted",
                "GATEWAY_WEBFETCH_ALLOW": server.ollama_url.removeprefix("http://"),
                # Its commands are known, and no machine needs to be kept from them.
                **({} if HAS_JAIL else {"GATEWAY_BASH_SANDBOX": "off_as_root"}),
            },
            prompt="Look at this project and tell me when the next high water is.",
            calls=4,
        )


@asynccontextmanager
async def gemma() -> AsyncIterator[Model]:
    """A real model inside this process, from a wheel."""
    from onrecord_cli.gemma import RealModel, RealModelUnavailable  # needs the extra `gemma`

    async with AsyncExitStack() as stack:
        try:
            server = await stack.enter_async_context(RealModel())
        except RealModelUnavailable as unavailable:
            raise SystemExit(str(unavailable)) from None
        yield Model(
            settings={
                "GATEWAY_OPENAI_URL": server.openai_url,
                "GATEWAY_OPENAI_MODEL": server.model,
                "GATEWAY_OPENAI_LOCAL": "true",
                "GATEWAY_MAX_STEPS": "3",
            },
            prompt="Read the file README.md",
        )


@asynccontextmanager
async def ollama() -> AsyncIterator[Model]:
    """The user's own Ollama, with the gateway's settings from the environment."""
    url = os.environ.get("GATEWAY_OLLAMA_URL", "http://127.0.0.1:11434")
    model = os.environ.get("GATEWAY_OLLAMA_MODEL", "qwen3:4b")
    yield Model(
        settings={"GATEWAY_OLLAMA_URL": url, "GATEWAY_OLLAMA_MODEL": model},
        prompt="Read README.md, run the program that it names with python3, and tell me what it prints.",
    )


MODELS: dict[str, Callable[[], AbstractAsyncContextManager[Model]]] = {
    "scripted": scripted,
    "gemma": gemma,
    "ollama": ollama,
}


@dataclass(frozen=True)
class Homes:
    """Where the ledger and the conversations lie: a file and a folder, or two databases of one PostgreSQL server."""

    ledger: str
    sessions: str = ""
    seal_key: str = ""
    """Beside a file that is the ledger, where it is not given."""


@contextmanager
def homes(store: str, state: Path) -> Iterator[Homes]:
    """Makes the homes; for "postgres", a server of PostgreSQL that runs as long."""
    if store == "sqlite":
        yield Homes(str(state / "audit.db"))
        return
    try:
        server = PostgresServer()
    except FileNotFoundError as missing:
        raise SystemExit(str(missing)) from None
    with server:
        console.print(f"PostgreSQL  listens on 127.0.0.1:{server.port}", style="dim")
        ledger, conversations = map(server.create_database, ("ledger", "conversations"))
        yield Homes(ledger, conversations, str(state / "seal-key"))


async def run(choice: str, *, approval: bool, agent: str, store: str) -> None:
    """Starts everything, runs one turn, and an agent of others where one is named; shows the rows, stops everything."""
    with tempfile.TemporaryDirectory(prefix="onrecord-demo-") as folder:
        state = Path(folder)
        shutil.copytree(HERE / "workspace", state / "workspace")
        people = TwoPeople(state) if approval else None
        async with MODELS[choice]() as model:
            if people:
                model.settings.update(people.settings())
            with homes(store, state) as home, start_service("audit_svc", audit_settings(home), "serve") as audit:
                console.print(f"audit_svc   listens on {audit.address}, {home.ledger}", style="dim")
                with start_service("gateway_svc", gateway_settings(state, home, audit, model), "serve") as gateway:
                    console.print(f"gateway_svc listens on {gateway.address}", style="dim")
                    console.print(f"commands run {JAIL}\n", style="dim")
                    console.print(f"> {model.prompt}", style="bold")
                    await run_turn(gateway.address, model.prompt, people)
                    expected = model.calls + (await run_claude(state, audit) if agent else 0)
                    await show_rows(audit.address, expected, approval=approval, agents=bool(agent))
                    gateway.terminate()
                audit.terminate()
    console.print(f"\n{NEXT}", style="dim")


async def run_claude(state: Path, audit: Service) -> int:
    """Runs Claude Code beside our own loop, which tells the door of its calls; returns how many."""
    settings = {
        "INTAKE_LISTEN": "127.0.0.1:0",
        "INTAKE_HTTP_LISTEN": "127.0.0.1:0",
        "INTAKE_AUDIT_TARGET": audit.address,
        "INTAKE_STATE_DIR": str(state / "intake"),
    }
    with start_service("intake_svc", settings, "serve") as door:
        console.print(f"\nintake_svc  listens on {door.address} and {door.http_address}", style="dim")
        console.print(f"> {claude_code.PROMPT}", style="bold")
        console.print(await claude_code.run(state / "home", state / "workspace", door.address, door.http_address))
        door.terminate()
    return len([call for step in claude_code.script(state).steps for call in step.tool_calls])


def audit_settings(home: Homes) -> dict[str, str]:
    """The audit service's environment."""
    key = {"AUDIT_SEAL_KEY_FILE": home.seal_key} if home.seal_key else {}
    return {"AUDIT_LISTEN": "127.0.0.1:0", "AUDIT_DB": home.ledger, **key}


def gateway_settings(state: Path, home: Homes, audit: Service, model: Model) -> dict[str, str]:
    """The gateway's environment."""
    return {
        "GATEWAY_LISTEN": "127.0.0.1:0",
        "GATEWAY_AUDIT_TARGET": audit.address,
        "GATEWAY_STATE_DIR": str(state / "gateway"),
        "GATEWAY_WORKSPACE": str(state / "workspace"),
        "GATEWAY_BASH_SANDBOX": "required" if HAS_JAIL else "auto",
        **({"GATEWAY_SESSIONS": home.sessions} if home.sessions else {}),
        **model.settings,
    }


async def run_turn(address: str, prompt: str, people: TwoPeople | None) -> None:
    """Runs a turn and shows it as it runs; with people, the one's turn, whose commands the other allows."""
    approving = asyncio.create_task(people.approve(address, console)) if people else None
    printer = TurnPrinter()
    settings = gateway_pb2.SessionSettings(labels={"user": "demo"})
    request = gateway_pb2.RunTurnRequest(input=prompt, new_session=settings)
    async with grpc.aio.insecure_channel(address, CLIENT_OPTIONS) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        async for event in stub.RunTurn(request, metadata=people.shown_by("ada") if people else None):
            printer.show(event)
    if approving:
        approving.cancel()
        await asyncio.wait([approving])


async def arrived(stub: "questions_pb2_grpc.QuestionServiceAsyncStub", expected: int) -> list[audit_pb2.AuditRow]:
    """The rows, once there are so many.

    Raises:
        SystemExit: there were fewer after SECONDS_TO_ARRIVE, as where the turn has failed.
    """
    rows: list[audit_pb2.AuditRow] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(SECONDS_TO_ARRIVE):
            while len(rows) < expected:
                await asyncio.sleep(0.05)
                listed = (await stub.ListToolCalls(questions_pb2.ListToolCallsRequest())).tool_calls
                rows = [record.tool_call for record in listed]
            return rows
    raise SystemExit(f"the ledger has {len(rows)} of {expected} rows after {SECONDS_TO_ARRIVE:.0f} s")


async def show_rows(address: str, expected: int, *, approval: bool, agents: bool) -> None:
    """Waits for so many rows, and shows them; with approval, who acted and allowed it; with agents, whose they are."""
    async with grpc.aio.insecure_channel(address, CLIENT_OPTIONS) as channel:
        stub = questions_pb2_grpc.QuestionServiceStub(channel)
        rows = await arrived(stub, expected)
    table = Table(
        *(["agent"] if agents else []),
        "tool",
        "arguments",
        *(["principal", "decided by", "waited"] if approval else []),
        "outcome",
        "took",
        "error",
        "result",
        least=("result", "took", *(["waited"] if approval else []), "arguments"),
        text="error",
    )
    for row in reversed(rows):
        table.add_row(
            *([f"{row.agent.name} {row.agent.version}" if row.agent.name else "our own loop"] if agents else []),
            row.tool_name,
            Text(row.args_summary).cut(SHOWN_ARGUMENTS) if console.width else row.args_summary,
            *([row.principal, row.decision.decided_by, duration(row.decision.waited_ms)] if approval else []),
            outcome_text(row),
            duration(known_duration_ms(row.outcome, row.duration_ms, row.source)),
            row.error,
            size(row.result_bytes),
        )
    console.print("\nthe ledger", style="bold")
    console.print(table)


def main(
    model: Annotated[Literal["scripted", "gemma", "ollama"], Option()] = "scripted",
    approval: Annotated[bool, Option(help="Whether a second person allows the commands.")] = False,
    agent: Annotated[Literal["", "claude"], Option(help="An agent of others to run beside it.")] = "",
    store: Annotated[Literal["sqlite", "postgres"], Option(help="Where the record and conversations lie.")] = "sqlite",
) -> None:
    """Runs the demo."""
    asyncio.run(run(model, approval=approval, agent=agent, store=store))


if __name__ == "__main__":
    program.run(main)
