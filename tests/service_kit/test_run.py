"""A service's life under faults: a log that does not take lines, watchers that do not read, threads that die."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc

from demo.processes import REPOSITORY, Service, start_service
from service_kit.errors import MAX_STATUS_BYTES
from service_kit.observing.logs import LIMITED_PER_SECOND
from tests.service_kit.sample_service import NAME
from tests.service_kit.silent_watcher import SilentWatcher

MODULE = "tests.service_kit.sample_service"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
REFUSED, AT_ONCE = 1_200, 100
"""Calls whose refusals are logged: more than a pipe of 64 KiB holds."""


def call(channel: grpc.Channel, value: str, *, patient: bool = True) -> Any:
    method = channel.unary_unary(f"/{NAME}/Repeat", StringValue.SerializeToString, StringValue.FromString)
    return method.future(StringValue(value=value), wait_for_ready=patient, timeout=60)


def health_of(channel: grpc.Channel) -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    return int(stub.Check(health_pb2.HealthCheckRequest(), timeout=60).status)


def becomes(channel: grpc.Channel, status: int) -> None:
    while health_of(channel) != status:
        time.sleep(0.01)


def wait_for(service: Service, event: str) -> None:
    while event not in service.stderr_text():
        time.sleep(0.01)


@contextmanager
def served(socket_path: Path, stderr: int | IO[bytes] | None, before: str = ":") -> Iterator[Any]:
    """The sample on a Unix socket, since its log cannot tell its address; it must end well at SIGTERM.

    A shell runs before, and then becomes the service: preexec_fn would fork, which breaks the gRPC of this process.
    """
    address = f"unix:{socket_path}"
    python_path = f"{REPOSITORY}:{REPOSITORY / 'protos'}"
    process = subprocess.Popen(
        ["sh", "-c", f'{before}; exec "$0" -m {MODULE}', sys.executable],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": python_path,
            "SAMPLE_LISTEN": address,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        cwd=REPOSITORY,
    )
    try:
        yield process, address
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()


def refused_calls_are_answered(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        codes = set()
        for _ in range(REFUSED // AT_ONCE):
            calls = [call(channel, "crash" if number % 3 else "full") for number in range(AT_ONCE)]
            codes |= {running.exception().code() for running in calls}
        assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL}
        assert call(channel, "fine").result().value == "fine"


@pytest.mark.long
def test_a_log_that_nobody_reads_any_more_fails_no_call(tmp_path):
    with served(tmp_path / "s", subprocess.PIPE) as (process, address):
        assert process.stderr.readline()
        process.stderr.close()
        refused_calls_are_answered(address)


@pytest.mark.long
def test_a_log_that_stands_still_holds_no_call_up(tmp_path):
    with served(tmp_path / "s", subprocess.PIPE) as (_, address):
        refused_calls_are_answered(address)


@pytest.mark.long
def test_a_service_that_is_started_without_stderr_serves(tmp_path):
    """Descriptor 2 must not be that of a file of the service, which would get its log."""
    with served(tmp_path / "s", None, before="exec 2>&-") as (process, address):
        refused_calls_are_answered(address)
        assert Path(f"/proc/{process.pid}/fd/2").readlink() == Path("/dev/null"), (
            "or a file of the service would get its log"
        )


@pytest.mark.long
def test_a_service_may_open_as_many_files_as_the_machine_allows(tmp_path):
    """The usual limit is less than what peers and a backlog can ask for."""
    with served(tmp_path / "s", None, before="ulimit -S -n 256; ulimit -H -n 2048") as (process, address):
        with grpc.insecure_channel(address) as channel:
            assert call(channel, "fine").result().value == "fine"
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (2048, 2048)


@pytest.fixture
def full_disk(tmp_path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "onrecord-test", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a disk that is full")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.long
def test_a_log_on_a_full_disk_fails_no_call_and_goes_on_when_there_is_room(full_disk, tmp_path):
    filler, path = full_disk / "filler", full_disk / "log"
    with path.open("ab", buffering=0) as log, suppress(OSError):
        filler.write_bytes(b"x" * 2**20)
    with path.open("ab", buffering=0) as log, served(tmp_path / "s", log) as (_, address):
        refused_calls_are_answered(address)
        filler.unlink()
        os.truncate(path, 0)
        with grpc.insecure_channel(address) as channel:
            assert call(channel, "crash again").exception().code() == grpc.StatusCode.INTERNAL
        while b"rpc.failed" not in path.read_bytes():
            time.sleep(0.01)


@pytest.mark.long
def test_refused_calls_are_logged_at_a_limited_rate_and_the_log_tells_how_many_it_left_out():
    refused = 300
    with start_service(MODULE, {}) as service, grpc.insecure_channel(service.address) as channel:
        began = time.monotonic()
        for _ in range(refused // AT_ONCE):
            for running in [call(channel, "full") for _ in range(AT_ONCE)]:
                assert running.exception().code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        seconds = time.monotonic() - began
        time.sleep(1)
        call(channel, "full").exception()
        told = 0
        while told < refused + 1:  # the test's own time limit ends it
            text = service.stderr_text()
            whole = text[: text.rfind("\n") + 1].splitlines()
            lines = [json.loads(line) for line in whole if '"rpc.refused"' in line]
            told = sum(1 + line.get("left_out", 0) for line in lines)
            time.sleep(0.01)
        assert len(lines) <= LIMITED_PER_SECOND * (seconds + 3)
        assert told == refused + 1


@pytest.mark.long
def test_a_long_text_in_a_status_is_cut_and_hides_neither_its_code_nor_its_end():
    with start_service(MODULE, {}) as service, grpc.insecure_channel(service.address) as channel:
        for sign in ("x", "§", "\U0001f40b"):
            error = call(channel, "long " + sign * 10_000).exception()
            assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
            assert error.details().endswith(" ends here")
            assert len(error.details().encode()) <= MAX_STATUS_BYTES


@pytest.mark.long
def test_a_watcher_that_never_reads_freezes_neither_health_nor_the_end():
    with (
        start_service(MODULE, {"SAMPLE_HEALTH_SECONDS": "0.05"}) as service,
        SilentWatcher(service.address),
        grpc.insecure_channel(service.address) as channel,
    ):
        becomes(channel, SERVING)
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == SERVING
        call(channel, "kill a thread").result()
        assert next(watch).status == NOT_SERVING
        sleeping = call(channel, "sleep")
        wait_for(service, "sample.sleeping")
        service.process.send_signal(signal.SIGTERM)
        wait_for(service, "service.draining")
        assert call(channel, "late", patient=False).exception().code() == grpc.StatusCode.UNAVAILABLE
        assert sleeping.exception() is not None
        assert service.process.wait(60) == 0


@pytest.mark.long
def test_a_thread_that_dies_takes_health_with_it():
    with (
        start_service(MODULE, {"SAMPLE_HEALTH_SECONDS": "0.05"}) as service,
        grpc.insecure_channel(service.address) as channel,
    ):
        becomes(channel, SERVING)
        call(channel, "kill a thread").result()
        becomes(channel, NOT_SERVING)
        assert '"threads died: frail"' in service.stderr_text()


@pytest.mark.long
def test_a_process_whose_interpreter_is_held_ends_all_the_same():
    """A regex that never ends lets no thread of Python's run: the kernel ends the process."""
    with (
        start_service(MODULE, {"SAMPLE_DRAIN_SECONDS": "0"}) as service,
        grpc.insecure_channel(service.address) as channel,
    ):
        holding = call(channel, "hold the interpreter")
        wait_for(service, "sample.holding")
        time.sleep(0.3)
        service.process.terminate()
        assert service.process.wait(60) == -signal.SIGALRM
        assert holding.exception() is not None
