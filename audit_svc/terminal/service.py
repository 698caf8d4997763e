"""A running service that a command asks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import Message
from onrecord.audit.v1 import questions_pb2_grpc

from audit_svc.terminal.running import EXIT_FAILED, EXIT_USAGE, in_options, what_lists
from service_kit.client import open_blocking_channel
from service_kit.terminal.failures import Failed, about_cause
from service_kit.unanswered import LEDGER, told

if TYPE_CHECKING:
    from recording.channel.token import Metadata


class Service:
    """A client of a service, with the caller's token."""

    def __init__(self, channel: grpc.Channel, metadata: "Metadata") -> None:
        self._channel, self._metadata = channel, metadata
        self._questions: Any = questions_pb2_grpc.QuestionServiceStub(channel)

    def call(self, rpc: str, request: Message, timeout: float | None = None) -> Any:
        """Calls an RPC; see Client."""
        stub = self._questions
        if not hasattr(stub, rpc):
            from onrecord.audit.v1 import administration_pb2_grpc, proof_pb2_grpc  # most commands need none of them

            stub = administration_pb2_grpc.AdministrationServiceStub(self._channel)
            if not hasattr(stub, rpc):
                stub = proof_pb2_grpc.ProofServiceStub(self._channel)
        return getattr(stub, rpc)(request, timeout=timeout, metadata=self._metadata)


@contextmanager
def open_service(target: str) -> Iterator[Service]:
    """A client of the service at target, "host:port"."""
    channel, metadata = open_blocking_channel(target)
    with channel:
        yield Service(channel, metadata)


@contextmanager
def answers_are_exit_code_1(target: str, otherwise: str = "", where: str = "") -> Iterator[None]:
    """Turns a call's failure in the body into Failed: exit code 2 where what was asked cannot be asked.

    otherwise: see Peer. where: see what_lists().
    """
    try:
        yield
    except grpc.RpcError as error:
        said = told(target, LEDGER._replace(otherwise=otherwise), error, in_options(error.details() or ""))
        code = EXIT_USAGE if error.code() is grpc.StatusCode.INVALID_ARGUMENT else EXIT_FAILED
        if error.code() is grpc.StatusCode.NOT_FOUND:
            named = about_cause(error).get("metadata", {})
            said += what_lists(named.get("resource", ""), named.get("id", ""), where)
        raise Failed(said, code, error) from None
