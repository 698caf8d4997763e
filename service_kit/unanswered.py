"""Why a service has not answered a call, in words for people, where gRPC has only its own."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from service_kit import client
from service_kit.printable import printable

if TYPE_CHECKING:
    import socket
    from types import ModuleType

    import grpc

_LOOK_SECONDS = 2.0

_NO_GRPC = ("http1.x server", "Failed parsing HTTP/2")
"""What gRPC says of a web server, and of anything else."""


class Peer(NamedTuple):
    """What should run at an address."""

    name: str
    """With its article."""
    named_by: str
    """How a person names another address of it."""
    service: str
    """A gRPC service that only it has."""
    otherwise: str = ""
    """What else a command can ask, where nobody listens."""


LEDGER = Peer("an audit service", "--target or AUDIT_LISTEN", "onrecord.audit.v1.QuestionService")
GATEWAY = Peer("a gateway", "--target or GATEWAY_LISTEN", "onrecord.gateway.v1.GatewayService")
DOOR = Peer("a door", "--target or INTAKE_LISTEN", "opentelemetry.proto.collector.trace.v1.TraceService")
_KNOWN = (LEDGER, GATEWAY, DOOR)


def why_unanswered(target: str, peer: Peer, error: "grpc.RpcError", *, is_plain: bool | None = None) -> str:
    """A sentence on what is the matter with target, where peer should run; empty where the answer says it.

    error: of a call to target. is_plain: whether it was called without TLS; None: as the command's options say.
    May connect to it, so that it takes up to some seconds.
    """
    import grpc

    call: Any = error
    code, details = call.code(), call.details() or ""
    if _is_services_own(call):
        return ""
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return _another(target, peer)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"{target} has not answered in time: it may be busy, try again"
    if code is not grpc.StatusCode.UNAVAILABLE:
        return ""
    if any(words in details for words in _NO_GRPC):
        return wrong(target, peer, ": what answers there speaks no gRPC")
    if "WRONG_VERSION_NUMBER" in details:
        return f"plain text is spoken at {target}: leave out --ca, and ONRECORD_CA"
    return _away(target, peer, is_plain=client.current_access().files is None if is_plain is None else is_plain)


def told(target: str, peer: Peer, error: "grpc.RpcError", details: str | None = None) -> str:
    """What a command says of a call that failed: why there was no answer, or the sentence of the service; the status
    only with the words of others, such as gRPC's library. Programs get it beside each sentence (terminal.failures).

    details: in the place of the service's words.
    """
    call: Any = error
    said = call.details() or "" if details is None else details
    own = said if _is_services_own(call) else ""
    if own and call.code().name == "UNAUTHENTICATED" and not client.current_access().token_file:
        own += "; --token-file, or ONRECORD_TOKEN_FILE, names a file with a token to send"
    return why_unanswered(target, peer, error) or own or f"{call.code().name}: {said}"


def is_cut(error: "grpc.RpcError") -> bool:
    """Whether a call that a service had begun to answer ended with its connection, and not by the service's word."""
    import grpc

    call: Any = error
    return call.code() is grpc.StatusCode.UNAVAILABLE and not _is_services_own(call)


def _is_services_own(call: Any) -> bool:
    """Only services have details: their own errors have an ErrorInfo (service_kit.errors)."""
    from recording.channel.details import has_details

    return has_details(call)


def _another(target: str, peer: Peer) -> str:
    """Of a service that does not know the call."""
    channel, _ = client.open_blocking_channel(target)
    with channel:
        there = who_answers(channel)
    if there and there.service == peer.service:
        return f"{peer.name} answers at {target}, and does not know this question: its version is another"
    return wrong(target, peer, f": {there.name} answers there" if there else "")


def wrong(target: str, peer: Peer, why: str) -> str:
    """The sentence on an address where peer does not run. why: begins with a colon, or is empty."""
    return f"{target} is not the address of {peer.name}{why}; {peer.named_by} names another address"


def who_answers(channel: "grpc.Channel") -> Peer | None:
    """Which of ours runs there: its health tells of the services that it has. None where nothing tells."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    stub: Any = health_pb2_grpc.HealthStub(channel)
    for peer in _KNOWN:
        with suppress(grpc.RpcError):
            stub.Check(health_pb2.HealthCheckRequest(service=peer.service), timeout=_LOOK_SECONDS)
            return peer
    return None


def _away(target: str, peer: Peer, *, is_plain: bool) -> str:
    """Why nobody at target takes a call; empty where a connection says nothing against it."""
    host, _, port = target.rpartition(":")
    if not (host and port.isdecimal()):
        return ""
    import socket
    import ssl

    try:
        with socket.create_connection((host.strip("[]"), int(port)), _LOOK_SECONDS) as connection:
            if is_plain and _speaks_tls(ssl, connection):
                return f"TLS is spoken at {target}: give --ca, or set ONRECORD_CA"
            return ""
    except ConnectionRefusedError:
        why = f"nobody listens on {target}"
    except (socket.gaierror, UnicodeError):  # the latter for a label that no name can have
        return f"the name {printable(host)} leads to no address; {peer.named_by} names another"
    except TimeoutError:
        why = f"{target} takes no connection"
    except (OSError, OverflowError) as error:
        why = f"{target} cannot be reached" + (f" ({error.strerror})" if isinstance(error, OSError) else "")
    if client.why_ended and (ended := client.why_ended()):
        return f"{why} any more: {ended}; try again in a moment"
    start = f"{client.how_to_start}; " if client.how_to_start else ""
    return f"{why}: is {peer.name} running there? {start}{peer.otherwise}{peer.named_by} names another address"


def _speaks_tls(ssl: "ModuleType", connection: "socket.socket") -> bool:
    """Whether who has accepted a connection answers the first message of TLS with one. Nobody is trusted for it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        context.wrap_socket(connection).close()
    except ssl.SSLError as error:
        return error.reason not in ("WRONG_VERSION_NUMBER", None)
    except OSError:
        return False
    return True
