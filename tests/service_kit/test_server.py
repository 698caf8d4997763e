"""A server's life, from bind to drain, as a process."""

import signal
import time
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc

from demo.processes import Service, ServiceEnded, start_service
from recording.channel.options import KEEPALIVE
from service_kit.run import EXIT_ENDED_BY_FORCE
from service_kit.server import SERVER_OPTIONS
from tests.service_kit.sample_service import NAME

MODULE = "tests.service_kit.sample_service"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def start(grace: str = "5", listen: str = "127.0.0.1:0") -> Service:
    return start_service(MODULE, {"SAMPLE_LISTEN": listen, "SAMPLE_DRAIN_SECONDS": grace})


def call(channel: grpc.Channel, value: str) -> Any:
    method = channel.unary_unary(f"/{NAME}/Repeat", StringValue.SerializeToString, StringValue.FromString)
    return method.future(StringValue(value=value), wait_for_ready=True)


def wait_for(service: Service, event: str) -> None:
    while event not in service.stderr_text():
        assert service.process.poll() is None, f"it has ended without {event}"
        time.sleep(0.01)


@pytest.mark.long
def test_health_is_told_overall_and_by_service_and_a_signal_ends_it_with_exit_code_0():
    with start() as service, grpc.insecure_channel(service.address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for name in ("", NAME):
            assert health.Check(health_pb2.HealthCheckRequest(service=name)).status == SERVING
        watch = health.Watch(health_pb2.HealthCheckRequest(service=NAME))
        assert next(watch).status == SERVING
        service.process.terminate()
        assert next(watch).status == NOT_SERVING
        watch.cancel()
        assert service.process.wait(30) == 0


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_running_calls_are_cut_when_the_grace_is_over(number):
    with start(grace="0.2") as service, grpc.insecure_channel(service.address) as channel:
        running = call(channel, "sleep")
        assert call(channel, "ready").result().value == "ready"
        service.process.send_signal(number)
        assert running.exception().code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
        assert service.process.wait(30) == 0


@pytest.mark.long
@pytest.mark.parametrize("ignored", [False, True], ids=["hung up", "below nohup"])
def test_a_terminal_that_is_closed_has_it_drain_unless_hangups_are_ignored(ignored):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)  # as it inherits it
    try:
        service = start()
    finally:
        signal.signal(signal.SIGHUP, before)
    with service, grpc.insecure_channel(service.address) as channel:
        running = call(channel, "sleep")
        assert call(channel, "ready").result().value == "ready"
        service.process.send_signal(signal.SIGHUP)
        if ignored:
            time.sleep(0.1)
            assert call(channel, "more").result().value == "more"
            return
        wait_for(service, "service.draining")
        service.process.send_signal(signal.SIGHUP)  # by the kernel, after the shell
        assert service.process.wait(30) == 0
        assert running.exception() is not None
        assert "service.stopped" in service.stderr_text()


@pytest.mark.long
def test_a_second_signal_ends_it_at_once():
    with start(grace="50") as service, grpc.insecure_channel(service.address) as channel:
        running = call(channel, "sleep")
        assert call(channel, "ready").result().value == "ready"
        service.process.terminate()
        wait_for(service, "service.draining")
        service.process.terminate()
        assert service.process.wait(30) == -signal.SIGTERM
        assert running.exception() is not None, "what nobody holds is cancelled, and then nothing keeps the process"


@pytest.mark.long
def test_a_call_that_will_not_end_does_not_keep_the_process():
    """It catches its cancellation again and again: soon after the grace the process ends, by exit code 3."""
    with start(grace="0.2") as service, grpc.insecure_channel(service.address) as channel:
        hanging = call(channel, "hang")
        wait_for(service, "sample.hanging")
        service.process.terminate()
        assert service.process.wait(30) == EXIT_ENDED_BY_FORCE
        assert hanging.exception() is not None
        assert "service.ended_by_force" in service.stderr_text()


@pytest.mark.long
def test_a_port_that_is_taken_ends_it_with_exit_code_1_and_a_sentence():
    with start() as service, pytest.raises(ServiceEnded) as ended:
        start(listen=service.address)
    assert "exit code 1\n" in str(ended.value)
    assert "another process listens there" in str(ended.value)


def test_clients_of_ours_ping_less_often_than_servers_of_ours_allow():
    assert (
        dict(KEEPALIVE)["grpc.keepalive_time_ms"] > dict(SERVER_OPTIONS)["grpc.http2.min_ping_interval_without_data_ms"]
    )


@pytest.mark.long
def test_a_message_beyond_the_limit_is_refused_and_the_service_goes_on():
    with start() as service, grpc.insecure_channel(service.address) as channel:
        assert call(channel, "x" * 17 * 2**20).exception().code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert call(channel, "fine").result().value == "fine"
