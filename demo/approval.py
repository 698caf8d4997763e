"""The two people of `make demo APPROVAL=1`: Ada runs the agent, and Bob allows the commands that it asks for."""

from pathlib import Path

import grpc
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import approvals_pb2, approvals_pb2_grpc

from recording.channel.options import CLIENT_OPTIONS
from service_kit.access.roles import Role, make_token
from service_kit.terminal.printing import Printer

Metadata = tuple[tuple[str, str], ...]


class TwoPeople:
    """Ada, a caller, and Bob, an approver: what the gateway knows of them, and what each shows."""

    def __init__(self, folder: Path) -> None:
        """Writes the list of callers into folder."""
        made = {name: make_token(name, [role]) for name, role in (("ada", Role.CALLER), ("bob", Role.APPROVER))}
        self._list = folder / "callers.toml"
        self._list.write_text("\n".join(table for _, table in made.values()), encoding="utf-8")
        self._list.chmod(0o600)
        self._tokens = {name: token for name, (token, _) in made.items()}

    def settings(self) -> dict[str, str]:
        """The gateway's environment: commands ask, and nobody answers their own."""
        return {
            "GATEWAY_TOKENS_FILE": str(self._list),
            "GATEWAY_TOOLS": "read,write,edit,glob,grep,webfetch,bash=ask",
            "GATEWAY_APPROVAL_BY_OTHERS": "true",
        }

    def shown_by(self, name: str) -> Metadata:
        """What a person's calls carry."""
        return (("authorization", f"Bearer {self._tokens[name]}"),)

    async def approve(self, address: str, console: Printer) -> None:
        """Bob allows whatever waits, until he is cancelled."""
        metadata = self.shown_by("bob")
        async with grpc.aio.insecure_channel(address, CLIENT_OPTIONS) as channel:
            stub = approvals_pb2_grpc.ApprovalServiceStub(channel)
            async for waiting in stub.WatchPendingToolCalls(
                approvals_pb2.WatchPendingToolCallsRequest(), metadata=metadata
            ):
                for call in waiting.added:
                    request = approvals_pb2.AnswerToolCallRequest(
                        tool_call_id=call.tool_call_id,
                        verdict=common_pb2.VERDICT_ALLOWED,
                        args_digest=call.args_digest,
                        reason="it only looks",
                    )
                    await stub.AnswerToolCall(request, metadata=metadata)
                    console.print(
                        f"bob allows {call.principal}'s {call.tool_name} {call.args_summary}",
                        style="yellow",
                    )
