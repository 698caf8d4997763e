"""A service whose stderr nobody reads any more: strangers fill it, and it must serve all the same."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from demo.processes import REPOSITORY
from service_kit.access.tls import ServerFiles
from service_kit.probe import probe
from tests.support.certificates import Authority
from tests.support.ports import own_port

SPOILED = 800
"""Handshakes; a line of gRPC's own for each would fill a pipe of 64 KiB twice."""


def spoil_a_handshake(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        try:
            while connection.recv(4096):
                pass
        except ConnectionError:
            pass


@pytest.mark.long
def test_handshakes_that_strangers_spoil_hold_nobody_up_though_stderr_stands_still(tmp_path: Path) -> None:
    pair = Authority(tmp_path).server()
    files = ServerFiles(pair.certificate, pair.key, None)
    with own_port() as port:
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'protos'}",
            "AUDIT_LISTEN": f"127.0.0.1:{port}",
            "AUDIT_DB": str(tmp_path / "audit.db"),
            "AUDIT_TLS_CERT": str(pair.certificate),
            "AUDIT_TLS_KEY": str(pair.key),
        }
        argv = [sys.executable, "-m", "audit_svc", "serve"]
        with subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, cwd=REPOSITORY) as service:
            try:
                while not probe(f"127.0.0.1:{port}", 5, own=files)[0]:
                    time.sleep(0.05)
                for _ in range(SPOILED):
                    spoil_a_handshake(port)
                assert probe(f"127.0.0.1:{port}", 30, own=files)[:2] == (True, f"127.0.0.1:{port}: SERVING")
                service.terminate()
                assert service.wait(60) == 0
            finally:
                service.kill()
