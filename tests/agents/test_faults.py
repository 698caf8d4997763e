"""The door is killed while three real agents run: nothing is lost that it answered, and nothing is stored twice."""

import asyncio
import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle, islice

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from demo.model_server import ModelServer
from demo.script import Call, Script, Step
from intake_svc.dialects import Reading, joined, read_logs, read_spans
from tests.agents.agents import AGENTS, Agent, Place, environment
from tests.agents.install import chosen
from tests.agents.test_agents import is_there
from tests.intake_svc.conftest import open_house, wait_for
from tests.support.ports import own_port

CAN = ("claude-code", "pydantic-ai", "langgraph", "openai-agents", "strands")
"""Those whose exporter can be told to send by HTTP and often."""
CHOSEN = [AGENTS[name] for name in CAN if name in chosen()]
pytestmark = [pytest.mark.agents, pytest.mark.skipif(not CHOSEN, reason=f"none of AGENTS is of {', '.join(CAN)}")]

ROUNDS, KILLS = 8, 3
OFTEN = {
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_LOGS_EXPORT_INTERVAL": "100",
    "OTEL_BSP_SCHEDULE_DELAY": "100",
}


class Between:
    """Stands between the agents and the door, and keeps what the door answered as safe."""

    def __init__(self, door: str) -> None:
        self.door = door
        self.address = ""
        self.answered: list[tuple[str, bytes]] = []

    def hand_over(self, path: str, body: bytes, kind: str) -> int:
        connection = http.client.HTTPConnection(self.door, timeout=60)
        try:
            connection.request("POST", path, body, {"Content-Type": kind})
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 503
        finally:
            connection.close()
        if status == 200:
            self.answered.append((path, body))
        return status

    def calls(self) -> set[tuple[str, str]]:
        """Each call of which the door answered, by its session and its id, or its time where it has none."""
        readings: list[Reading] = []
        for path, body in tuple(self.answered):
            if path == "/v1/logs":
                readings += map(read_logs, ExportLogsServiceRequest.FromString(body).resource_logs)
            elif path == "/v1/traces":
                readings += map(read_spans, ExportTraceServiceRequest.FromString(body).resource_spans)
        return {(row.session_id, row.provider_call_id or str(row.created_at_ms)) for row in joined(readings).calls}


@contextmanager
def between(door: str) -> Iterator[Between]:
    stands = Between(door)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = stands.hand_over(self.path, body, self.headers["content-type"])
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        stands.address = f"127.0.0.1:{server.server_address[1]}"
        try:
            yield stands
        finally:
            server.shutdown()
            thread.join()


async def test_a_door_that_is_killed_loses_no_call_of_three_real_agents_that_it_answered(tmp_path):
    for agent in CHOSEN:
        is_there(agent)
    with open_house(tmp_path / "house") as house, own_port() as grpc, own_port() as http_port:
        house.start_audit()
        listen = {"INTAKE_LISTEN": f"127.0.0.1:{grpc}", "INTAKE_HTTP_LISTEN": f"127.0.0.1:{http_port}"}
        door = house.start_door(**listen)
        with between(door.http) as stands:
            three = islice(cycle(CHOSEN), 3)
            runs = [asyncio.create_task(run(agent, tmp_path / str(at), stands)) for at, agent in enumerate(three)]
            for _ in range(KILLS):
                seen = len(stands.answered)
                while len(stands.answered) < seen + 3 and not all(one.done() for one in runs):
                    await asyncio.sleep(0.02)
                door.service.kill()
                door = await asyncio.to_thread(house.start_door, **listen)
            await asyncio.gather(*runs)
            answered = stands.calls()
        assert answered

        def stored() -> list[tuple[str, str]]:
            return [(row["session_id"], row["provider_call_id"] or str(row["created_at"])) for row in house.rows()]

        await asyncio.to_thread(wait_for, lambda: answered <= set(stored()))
        assert len(stored()) == len(set(stored()))
        print(f"{len(answered)} calls answered, {len(stored())} stored, {KILLS} kills")


async def run(agent: Agent, folder, stands: Between) -> None:
    """Runs an agent through many calls that succeed; each has an id of its own."""
    places = folder / "home", folder / "work"
    for one in places:
        one.mkdir(parents=True)
    (folder / "work" / "notes.txt").write_text("notes\n")
    asked = agent.asked(folder / "work")[0]
    calls = [Call(name=asked.name, arguments=asked.arguments, id=f"call_{folder.name}_{at}") for at in range(ROUNDS)]
    steps = [Step(tool_calls=(call,), delay_ms=200) for call in calls]
    async with ModelServer(Script(steps=(*steps, Step(text="Done")), one_prompt=True, aside=Step(text="N"))) as server:
        place = Place(*places, server.url, stands.address, stands.address)
        launch = agent.launch(place)
        process = await asyncio.create_subprocess_exec(
            *launch.command,
            cwd=place.work,
            env={**environment(place, launch), **OFTEN},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode(errors="replace")
