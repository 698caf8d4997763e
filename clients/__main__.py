"""`make clients`: starts a pair with TLS and tokens, runs each client of this folder and checks what it left.

Then it runs the calls of protos/README.md.
"""

import asyncio
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import grpc
from onrecord.audit.v1 import audit_pb2, questions_pb2_grpc
from onrecord.audit.v1.questions_pb2 import ListToolCallsRequest, ToolCallFilter
from onrecord.common.v1 import common_pb2

from demo.__main__ import HERE as DEMO
from demo.__main__ import Model, scripted
from demo.processes import REPOSITORY, Service, start_service
from recording.channel.options import CLIENT_OPTIONS
from service_kit.access.roles import Role, make_token

CLIENTS = ("python", "node", "go", "shell", "java")
APPROVALS = """count = 1
[[rules]]
name = "approvals"
tools = ["bash"]
condition = 'has(labels.approvals) && labels.approvals == "asked"'
verdict = "ask"
"""
"""The rules of the gateway: sessions with this label wait for an answer, which their client gives."""
CALLS = "calls"
"""Not a client, but the calls of protos/README.md."""
TOOLS_ARE_MISSING = 3
"""The exit code of FOLDER/run if the language's tools are not installed."""
SECONDS_TO_RUN = 300.0
SECONDS_TO_ARRIVE = 60.0
ROWS_OF_TURN, ROWS_OF_CLIENT = 4, 4

_NAME = "clients"


class Wrong(Exception):
    """A client did not do what it should."""


class Secrets:
    """Certificates and tokens, each in a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = folder / "audit/ca.pem"
        self.gateway_token = folder / "token-for-gateway"
        self.audit_token = folder / "token-for-audit"
        self.admin_token = folder / "token-for-administration"
        self.gateway_admin_token = folder / "token-for-stopping"
        self.producer_token = folder / "token-of-gateway"

    async def make(self) -> None:
        """Writes them all."""
        script = await asyncio.create_subprocess_exec(REPOSITORY / "deploy/make-certificates", self.folder, "1")
        if await script.wait() != 0:
            raise SystemExit("deploy/make-certificates failed")
        lists: dict[str, list[str]] = {"gateway": [], "audit": []}
        for service, name, roles, path in (
            ("gateway", _NAME, [Role.CALLER], self.gateway_token),
            ("audit", _NAME, [Role.PRODUCER, Role.READER], self.audit_token),
            ("audit", "operator", [Role.ADMIN], self.admin_token),
            ("gateway", "operator", [Role.ADMIN], self.gateway_admin_token),
            ("audit", "gateway", [Role.PRODUCER], self.producer_token),
        ):
            token, table = make_token(name, roles)
            path.write_text(f"{token}\n")
            lists[service].append(table)
        for service, tables in lists.items():
            (self.folder / service / "callers.toml").write_text("\n\n".join(tables))

    def of_service(self, prefix: str, name: str) -> dict[str, str]:
        """The environment of a service that requires tokens."""
        own = self.folder / name
        files = {"TLS_CERT": own / "cert.pem", "TLS_KEY": own / "key.pem", "TOKENS_FILE": own / "callers.toml"}
        return {f"{prefix}_{variable}": str(path) for variable, path in files.items()}


def start_audit(state: Path, secrets: Secrets) -> Service:
    """Starts the audit service."""
    env = {"AUDIT_LISTEN": "127.0.0.1:0", "AUDIT_DB": str(state / "audit.db")}
    return start_service("audit_svc", {**env, **secrets.of_service("AUDIT", "audit")}, "serve")


def start_gateway(state: Path, secrets: Secrets, audit: Service, model: Model) -> Service:
    """Starts the gateway, one of the audit service's callers."""
    rules = state / "rules.toml"
    rules.write_text(APPROVALS)
    env = {
        "GATEWAY_LISTEN": "127.0.0.1:0",
        "GATEWAY_RULES_FILE": str(rules),
        "GATEWAY_STATE_DIR": str(state / "gateway"),
        "GATEWAY_WORKSPACE": str(state / "workspace"),
        "GATEWAY_BASH_SANDBOX": "auto" if shutil.which("bwrap") else "off",
        "GATEWAY_AUDIT_TARGET": audit.address,
        "GATEWAY_AUDIT_TLS_CA": str(secrets.ca),
        "GATEWAY_AUDIT_TOKEN_FILE": str(secrets.producer_token),
        "GATEWAY_PRODUCER_NAME": "gateway",
        **model.settings,
    }
    return start_service("gateway_svc", {**env, **secrets.of_service("GATEWAY", "gateway")}, "serve")


async def run_client(name: str, secrets: Secrets, audit: Service, gateway: Service) -> bool:
    """Runs a client and checks the rows that it left; False if its language's tools are missing.

    Raises:
        Wrong: it failed, or left something else than it should have.
    """
    env = {
        **os.environ,
        "ONRECORD_GATEWAY": _by_name(gateway),
        "ONRECORD_AUDIT": _by_name(audit),
        "ONRECORD_CA": str(secrets.ca),
        "ONRECORD_GATEWAY_TOKEN": str(secrets.gateway_token),
        "ONRECORD_AUDIT_TOKEN": str(secrets.audit_token),
        "ONRECORD_ADMIN_TOKEN": str(secrets.admin_token),
        "ONRECORD_GATEWAY_ADMIN_TOKEN": str(secrets.gateway_admin_token),
        "ONRECORD_PRODUCER": f"{_NAME}/{name}",
    }
    process = await asyncio.create_subprocess_exec(REPOSITORY / "clients" / name / "run", env=env)
    try:
        async with asyncio.timeout(SECONDS_TO_RUN):
            code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
    if code == TOOLS_ARE_MISSING:
        return False
    if code != 0:
        raise Wrong(f"exit code {code}")
    if name != CALLS:
        await look_at_ledger(name, secrets, audit)
    return True


def _by_name(service: Service) -> str:
    """The address with the certificate's host name, since Node's TLS takes no IP address for one."""
    return service.address.replace("127.0.0.1", "localhost")


async def look_at_ledger(name: str, secrets: Secrets, audit: Service) -> None:
    """Waits for the rows of one session: those of the turn and those that the client recorded, each once.

    Raises:
        Wrong: they are not there, or there are others.
    """
    credentials = grpc.ssl_channel_credentials(secrets.ca.read_bytes())
    metadata = [("authorization", f"Bearer {secrets.audit_token.read_text().strip()}")]
    async with grpc.aio.secure_channel(audit.address, credentials, CLIENT_OPTIONS) as channel:
        stub = questions_pb2_grpc.QuestionServiceStub(channel)

        async def ask(wanted: ToolCallFilter) -> list[audit_pb2.AuditRow]:
            answer = await stub.ListToolCalls(ListToolCallsRequest(filter=wanted), metadata=metadata)
            return [record.tool_call for record in answer.tool_calls]

        own = await ask(ToolCallFilter(engine=f"{name}-client"))
        tools = sorted(row.tool_name for row in own)
        if tools != ["measure", "measure", "report", "report"]:
            raise Wrong(f"the ledger has of it {tools}")
        deadline = time.monotonic() + SECONDS_TO_ARRIVE
        while (count := len(await ask(ToolCallFilter(session_id=own[0].session_id)))) != ROWS_OF_TURN + ROWS_OF_CLIENT:
            if time.monotonic() > deadline:
                raise Wrong(f"the ledger has {count} rows of its session")
            await asyncio.sleep(0.05)
        (asked,) = await ask(ToolCallFilter(session_id=own[0].session_id, tool_name="bash"))
        if (asked.decision.source, asked.decision.decided_by) != (common_pb2.DECISION_SOURCE_PERSON, _NAME):
            raise Wrong(f"it did not approve the call that waited: {asked.decision}")


async def main() -> int:
    """Runs all clients, or those named on the command line; returns the exit code."""
    outcomes: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="onrecord-clients-") as folder:
        state = Path(folder)
        shutil.copytree(DEMO / "workspace", state / "workspace")
        secrets = Secrets(state / "secrets")
        await secrets.make()
        async with scripted() as model:
            with start_audit(state, secrets) as audit, start_gateway(state, secrets, audit, model) as gateway:
                for name in sys.argv[1:] or (*CLIENTS, CALLS):
                    print(f"--- {name}", flush=True)
                    began = time.monotonic()
                    try:
                        ran = await run_client(name, secrets, audit, gateway)
                        outcomes[name] = (
                            f"passed in {time.monotonic() - began:.1f} s" if ran else "its tools are missing"
                        )
                    except Wrong as wrong:
                        outcomes[name] = f"failed: {wrong}"
    for name, outcome in outcomes.items():
        print(f"{name:8}{outcome}")
    # A language may be missing on a developer's machine, but not where everything is installed.
    accepted = ("passed",) if os.environ.get("CI") else ("passed", "its tools")
    return 0 if all(outcome.startswith(accepted) for outcome in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
