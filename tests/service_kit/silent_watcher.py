"""A client that asks health's Watch for its stream and never reads it: its window is 0, and its pings are answered."""

import socket
import struct
import threading
from types import TracebackType
from typing import Self

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING = 0, 1, 4, 6
_ACK = END_STREAM = 1
_END_HEADERS = 4
_INITIAL_WINDOW_SIZE = 4
_FIELDS = {
    b":method": b"POST",
    b":scheme": b"http",
    b":path": b"/grpc.health.v1.Health/Watch",
    b":authority": b"sample",
    b"te": b"trailers",
    b"content-type": b"application/grpc",
}


class SilentWatcher:
    """As a context manager; it has asked when it is entered."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._lock = threading.Lock()
        self._acked = threading.Event()
        window = struct.pack(">HI", _INITIAL_WINDOW_SIZE, 0)
        fields = b"".join(bytes([0, len(name)]) + name + bytes([len(value)]) + value for name, value in _FIELDS.items())
        self._socket.sendall(_PREFACE)
        self._send(_SETTINGS, 0, 0, window)
        self._send(_HEADERS, _END_HEADERS, 1, fields)
        self._send(_DATA, END_STREAM, 1, b"\0" * 5)
        self._reading = threading.Thread(target=self._read, daemon=True)

    def _send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        with self._lock:
            self._socket.sendall(struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream))
            self._socket.sendall(payload)

    def _read(self) -> None:
        file = self._socket.makefile("rb")
        while len(head := file.read(9)) == 9:
            payload = file.read(int.from_bytes(head[:3], "big"))
            kind, flags = head[3], head[4]
            if kind in (_SETTINGS, _PING) and not flags & _ACK:
                self._send(kind, _ACK, 0, payload if kind == _PING else b"")
                self._acked.set()

    def __enter__(self) -> Self:
        self._reading.start()
        assert self._acked.wait(30)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._reading.join(30)
        self._socket.close()
