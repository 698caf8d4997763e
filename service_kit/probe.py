"""The health probe for people and containers."""

from typing import Any, NamedTuple

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from recording.channel.options import DIRECT, ClientOptions
from recording.channel.tls import ClientFiles
from recording.channel.watched import WrongFile
from service_kit.access.tls import ServerFiles
from service_kit.client import ClientAccess
from service_kit.health import AGE_KEY, DETAIL_KEY
from service_kit.printable import printable
from service_kit.unanswered import Peer, who_answers, why_unanswered, wrong


class Probed(NamedTuple):
    """What a server says of its health."""

    serves: bool
    said: str
    """Or why it does not answer."""
    age_ms: int | None = None
    """How long ago it looked; None where it does not say."""


def probe(
    address: str,
    timeout_seconds: float,
    access: ClientAccess | None = None,
    own: ServerFiles | None = None,
    *,
    live: bool = False,
    peer: Peer | None = None,
) -> Probed:
    """Asks the server at address, "host:port", whether it serves.

    access: what to trust and to show. Without it and with own, the files of a server on this machine, its own
    certificate is what is trusted, and shown where it asks for one. live: an answer is enough, whatever it says.
    peer: what should run there, for a sentence on why it is unavailable.
    """
    access = access or ClientAccess()
    try:
        channel = _open(address, access, own)
    except WrongFile as error:
        return Probed(False, str(error))
    with channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer, call = stub.Check.with_call(health_pb2.HealthCheckRequest(), timeout=timeout_seconds)
        except grpc.RpcError as error:
            why = ""
            if peer and error.code() is grpc.StatusCode.UNAVAILABLE:
                why = why_unanswered(address, peer, error, is_plain=access.files is None and own is None)
            return Probed(False, why or f"{address}: {error.code().name}")
        there = who_answers(channel) if peer and not live else None
    if peer and there and there.service != peer.service:
        return Probed(False, wrong(address, peer, f": {there.name} answers there"))
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    metadata = dict(call.trailing_metadata() or ())
    detail, age = metadata.get(DETAIL_KEY, b"").decode("utf-8", "replace"), str(metadata.get(AGE_KEY, ""))
    said = f"{address}: {status}" + (f": {printable(detail)}" if detail else "")
    serves = live or answer.status == health_pb2.HealthCheckResponse.SERVING
    return Probed(serves, said, int(age) if age.isdecimal() else None)


def _open(address: str, access: ClientAccess, own: ServerFiles | None) -> grpc.Channel:
    options: ClientOptions = [*DIRECT]
    if access.files is None and own is not None:
        from recording.channel.certificates import certificate_name  # only with TLS: it takes long to load

        shown = (own.certificate, own.key) if own.client_ca else (None, None)
        access = ClientAccess(ClientFiles(own.certificate, *shown))
        # The address of a probe is the loopback's, which certificates seldom name.
        options.append(("grpc.ssl_target_name_override", certificate_name(own.certificate)))
    credentials = access.credentials()
    if credentials is None:
        return grpc.insecure_channel(address, options)
    return grpc.secure_channel(address, credentials, options)
