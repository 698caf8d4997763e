"""`onrecord-health audit|gateway|intake [--live]`: the health probe of the images, in milliseconds.

It asks what `audit-svc health` asks, of the service in its own container, and says it in the same words. A container is
probed every few seconds all its life, so this loads neither gRPC nor pydantic nor even the modules socket and ssl: one
call of grpc.health.v1 is a few frames of HTTP/2 (RFC 9113, 7541). Run by Python without site-packages (`python -IS`).

Exit codes: 0 where the service serves, or with --live answers at all; else 1; 2 for a wrong command line.
"""

import _socket  # the module socket takes longer to import than all of this
import os
import sys
from collections.abc import Callable
from time import monotonic

SECONDS = 3.0
USAGE = "usage: onrecord-health audit|gateway|intake [--live]\n"
STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
"""By their numbers in grpc.health.v1."""
DETAIL_KEY = b"onrecord-health-bin"  # service_kit.health says it, and a test holds the two together

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _GOAWAY = 0, 1, 3, 4, 7
_END_STREAM, _END_HEADERS, _PADDED = 0x1, 0x4, 0x8
_TRUE_BINARY = b"\xfe\x03\x00\x00\x00\x01"
"""gRPC's own setting: values of keys that end with -bin come as they are, not in base64 and Huffman's code."""
_PROTOCOL_TLS_CLIENT, _PARTIAL_CHAIN = 16, 0x80000  # of the module ssl


class Unavailable(Exception):
    """There is no answer; the message is the gRPC status that says so."""


class _Socket(_socket.socket):
    """One that TLS can refer to weakly, as it does."""


def probe(service: str, timeout_seconds: float = SECONDS) -> tuple[str, str]:
    """Asks the service, "audit", "gateway" or "intake", at the address and with the files that its settings in the
    environment name; returns the name of its status and its detail, which may be empty.

    Raises:
        Unavailable: it does not answer.
    """
    deadline = monotonic() + timeout_seconds
    connection = None
    try:
        connection = _connected(address_of(service), deadline)
        read, write = _spoken(service, connection)
        certificate = _setting(service, "TLS_CERT")
        write(_request(b"\x87" if certificate else b"\x86"))
        return _answer(read, connection, deadline)
    except TimeoutError:
        raise Unavailable("DEADLINE_EXCEEDED") from None
    except (OSError, ValueError):
        raise Unavailable("UNAVAILABLE") from None
    finally:
        if connection is not None:
            connection.close()


def address_of(service: str) -> str:
    """Where the service listens, "host:port" or "unix:path". Raises ValueError where its settings do not say."""
    if not (address := _setting(service, "LISTEN")):
        raise ValueError(f"{service.upper()}_LISTEN is not set")
    return address


def _setting(service: str, name: str) -> str:
    return os.environ.get(f"{service.upper()}_{name}", "").strip()


def _connected(address: str, deadline: float) -> _socket.socket:
    if address.startswith("unix:"):
        connection = _Socket(_socket.AF_UNIX)
        to: tuple[str, int] | str = address.removeprefix("unix:")
    else:
        host, _, port = address.rpartition(":")
        connection = _Socket(_socket.AF_INET6 if ":" in host else _socket.AF_INET)
        to = (host.strip("[]"), int(port))
    connection.settimeout(_left(deadline))
    connection.connect(to)
    return connection


def _spoken(service: str, connection: _socket.socket) -> tuple[Callable[[int], bytes], Callable[[bytes], object]]:
    """How to read and write: in TLS where the service has a certificate, which is what is trusted, and is shown where
    clients must show one; ONRECORD_CA, ONRECORD_CERT and ONRECORD_KEY take its place.
    """
    if not (certificate := _setting(service, "TLS_CERT")):
        return connection.recv, connection.sendall
    import _ssl  # only with TLS; the module ssl takes three times as long

    shown, key = os.environ.get("ONRECORD_CERT"), os.environ.get("ONRECORD_KEY")
    if not shown and _setting(service, "TLS_CLIENT_CA"):
        shown, key = certificate, _setting(service, "TLS_KEY")
    context = _ssl._SSLContext(_PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the address of a probe is the loopback's, which certificates seldom name
    context.verify_flags |= _PARTIAL_CHAIN  # the certificate itself is enough, without who signed it
    context.load_verify_locations(os.environ.get("ONRECORD_CA") or certificate)
    if shown:
        context.load_cert_chain(shown, key)
    context._set_alpn_protocols(b"\x02h2")  # type: ignore[attr-defined]  # these two the types do not know
    secure = context._wrap_socket(connection, False)  # type: ignore[attr-defined]
    secure.do_handshake()
    return secure.read, secure.write


def _request(scheme: bytes) -> bytes:
    """Check of grpc.health.v1 for the whole server, on stream 1. scheme: its entry in the static table of HPACK."""
    # :method POST, :scheme, :path, :authority, content-type, te: entries of the static table, or literals not indexed
    block = b"\x83" + scheme + b"\x04" + _text(b"/grpc.health.v1.Health/Check") + b"\x01" + _text(b"localhost")
    block += b"\x0f\x10" + _text(b"application/grpc") + b"\x00" + _text(b"te") + _text(b"trailers")
    begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, _TRUE_BINARY)
    # an empty message: five bytes that say so
    return begin + _frame(_HEADERS, _END_HEADERS, 1, block) + _frame(_DATA, _END_STREAM, 1, bytes(5))


def _text(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _answer(read: Callable[[int], bytes], connection: _socket.socket, deadline: float) -> tuple[str, str]:
    """The status and the detail in what the server sends until its stream ends."""
    pending, message = b"", b""
    while True:
        while len(pending) < 9 or len(pending) < 9 + int.from_bytes(pending[:3], "big"):
            connection.settimeout(_left(deadline))
            if not (part := read(65536)):
                raise Unavailable("UNAVAILABLE")
            pending += part
        end = 9 + int.from_bytes(pending[:3], "big")
        kind, flags, payload, pending = pending[3], pending[4], pending[9:end], pending[end:]
        if flags & _PADDED and kind in (_DATA, _HEADERS):
            payload = payload[1 : len(payload) - payload[0]]
        if kind == _DATA:
            message += payload
        elif kind in (_RST_STREAM, _GOAWAY) or (kind == _HEADERS and flags & _END_STREAM and len(message) < 5):
            raise Unavailable("UNAVAILABLE")  # an error without a message
        elif kind == _HEADERS and flags & _END_STREAM:
            # HealthCheckResponse: its only field is the status, which is not sent when it is 0
            status = message[6] if message[5:6] == b"\x08" else 0
            return STATUSES[status] if status < len(STATUSES) else str(status), _detail(payload)


def _detail(trailers: bytes) -> str:
    """The value of DETAIL_KEY in trailers as gRPC writes them: literals, and binary values as they are, after a 0."""
    _, found, rest = trailers.partition(DETAIL_KEY)
    if not found:
        return ""
    length, at = rest[0], 1
    if length == 0x7F:  # the rest of it is in groups of seven bits, the lowest first
        shift = 0
        while True:
            length += (rest[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if rest[at - 1] < 0x80:
                break
    value = rest[at + 1 : at + length].decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "?" for character in value)


def _left(deadline: float) -> float:
    if (left := deadline - monotonic()) <= 0:
        raise TimeoutError
    return left


def main() -> None:
    """Probes, says what came out, and ends the process."""
    service, options = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    if service not in ("audit", "gateway", "intake") or options not in ([], ["--live"]):
        sys.stderr.write(USAGE)
        os._exit(2)
    address, ok = "", False
    try:
        address = address_of(service)
        status, detail = probe(service)
        ok = status == "SERVING" or "--live" in options
        said = f"{address}: {status}" + (f": {detail}" if detail else "")
    except Unavailable as away:
        said = f"{address}: {away}"
    except ValueError as unset:
        said = str(unset)
    os.write(1 if ok else 2, f"{said}\n".encode())
    os._exit(0 if ok else 1)  # an interpreter's end takes milliseconds


if __name__ == "__main__":
    main()
