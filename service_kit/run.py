"""The life of a service, the same for both: bind, serve, be healthy, drain at a signal, end."""

import asyncio
import os
import resource
import signal
import threading
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import grpc
import structlog
from grpc_health.v1 import health_pb2_grpc
from prometheus_client import CollectorRegistry

from service_kit.access.guard import Guard, GuardSettings
from service_kit.errors import ErrorInterceptor
from service_kit.freed_memory import keep_few_heaps, trimming
from service_kit.health import Check, Health, follow, nothing
from service_kit.init_process import run_below_init
from service_kit.observing.log_writer import LogWriter
from service_kit.observing.logs import configure_logging
from service_kit.observing.loop_watch import LoopWatch
from service_kit.observing.metrics import UpkeepCollector, serve_metrics
from service_kit.observing.rpcs import RpcObserver
from service_kit.server import add_reflection, answering, bind, build_server
from service_kit.threads import watch_threads

log = structlog.get_logger(__name__)

EXIT_ENDED_BY_FORCE = 3

FORCE_AFTER_SECONDS = 10.0
"""How long the process may go on after its drain time, to close files and to cancel what would not end by itself."""
KILL_AFTER_SECONDS = 2
"""How much longer it may go on when no Python code can run any more."""
CHECK_SECONDS = 10.0

END_SIGNALS = tuple(
    number
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
)
"""What has a service drain; the hangup of its terminal too, unless it was started to outlive that, as by nohup."""


@dataclass(frozen=True, slots=True)
class Service:
    """What a service is to run_service()."""

    names: Sequence[str]
    """The full names of its gRPC services, such as onrecord.audit.v1.AuditService."""
    add_to: Callable[[grpc.aio.Server], None]
    errors: ErrorInterceptor
    check: Check
    begin_drain: Callable[[], None]
    """Called at the signal, before anything is awaited: begins nothing new."""
    drain: Callable[[], Awaitable[None]] | None = None
    """Brings what runs to its end, where it does not end by itself. It is cancelled when the drain time is over."""
    check_now: asyncio.Event | None = None
    """Set when check is not to wait for its time, since something failed."""
    detail: Check = nothing
    """What an operator should look at although the service can do its work; empty when there is nothing."""
    health_names: Sequence[str] = ()
    """More names that health knows, such as that of a part that one of several replicas plays."""
    resting: Callable[[], Collection[str]] = tuple
    """Those of all these names that are not served now although the others are."""
    routing: Sequence[grpc.aio.ServerInterceptor] = ()
    """Behind all other interceptors: who answers a call in the place of this process."""
    shares_port: bool = False
    """Whether other processes of the service listen on the same port."""
    metrics_socket: Path | None = None
    """Where the metrics are served, in the place of settings.metrics_listen."""
    takes_unknown_fields: Collection[str] = ()
    """RPCs, as /package.Service/Method, whose requests may have fields that this version does not know."""
    beside: Callable[[], AbstractAsyncContextManager[object]] = nullcontext
    """What is served beside gRPC: entered before it is said that the service listens, left when gRPC has ended."""


def prepare_process(settings: GuardSettings) -> None:
    """Makes this process one that serves: its files, signals, logs, threads. Call it before there is any thread."""
    keep_few_heaps()
    _open_standard_files()
    _allow_many_files()
    run_below_init()
    configure_logging(settings.log_level, settings.log_style)
    watch_threads()


async def run_service(service: Service, settings: GuardSettings, guard: Guard, registry: CollectorRegistry) -> None:
    """Serves until one of END_SIGNALS, then drains: NOT_SERVING, nothing new, what runs comes to its end, at most for
    settings.drain_seconds.

    The log line `service.listening` tells the address. A second signal ends the process at once. Whatever hangs, the
    process ends soon after the drain time: with exit code 3, or by SIGALRM where not even Python runs.

    Raises:
        SystemExit: with code 1, when an address cannot be had.
    """
    if writer := LogWriter.current:
        registry.register(writer)
    registry.register(UpkeepCollector())
    inner = answering(service.errors, service.names, service.takes_unknown_fields, guard.interceptors)
    options = [*guard.options, ("grpc.so_reuseport", int(service.shares_port))]
    server = build_server([RpcObserver(registry), *inner, *service.routing], options)
    service.add_to(server)
    health = Health([*service.names, *service.health_names])
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    if settings.reflects:
        add_reflection(server, service.names)
    deadline, force_after = 0.0, settings.drain_seconds + FORCE_AFTER_SECONDS

    def begin_drain() -> None:
        nonlocal deadline
        deadline = asyncio.get_running_loop().time() + settings.drain_seconds
        _end_by_force(force_after)
        health.drain()
        service.begin_drain()
        log.info("service.draining", grace_seconds=settings.drain_seconds)

    following = follow(
        health,
        service.check,
        service.detail,
        every_seconds=settings.health_seconds,
        within_seconds=CHECK_SECONDS,
        check_now=service.check_now,
        resting=service.resting,
    )
    async with following:
        with (
            serve_metrics(service.metrics_socket or settings.metrics_listen, registry),
            LoopWatch(registry).watching(),
            trimming(),
        ):
            address = bind(server, settings.listen, guard.credentials)
            async with service.beside():
                signalled = _at_first_signal(begin_drain, force_after + KILL_AFTER_SECONDS)
                await server.start()
                log.info("service.listening", address=address)
                await signalled
                if service.drain is not None:
                    try:
                        async with asyncio.timeout_at(deadline):
                            await service.drain()
                    except TimeoutError:
                        log.warning("service.drain_cut_short")
                await server.stop(max(0.0, deadline - asyncio.get_running_loop().time()))
            log.info("service.stopped")


def _at_first_signal(begin: Callable[[], None], kill_after_seconds: float) -> asyncio.Future[None]:
    """Calls begin at the first of END_SIGNALS; the second has its ordinary effect, death, unless it is a hangup."""
    loop = asyncio.get_running_loop()
    signalled: asyncio.Future[None] = loop.create_future()

    def begin_drain() -> None:
        begin()
        signalled.set_result(None)

    # Not by asyncio's handlers, which wait for the loop: this one also runs inside a regex that never ends.
    def arrived(number: int, frame: FrameType | None) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which the shell sends, and the kernel again
        # Where a call into C holds the interpreter no thread of Python's can end the process, but the kernel can.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, kill_after_seconds)
        loop.call_soon_threadsafe(begin_drain)

    for number in END_SIGNALS:
        signal.signal(number, arrived)
    return signalled


def _end_by_force(after_seconds: float) -> None:
    """Ends the process although a thread or a handler of it hangs. What is on disk is as after a kill."""

    def end() -> None:
        log.error("service.ended_by_force", after_seconds=after_seconds)
        if writer := LogWriter.current:
            writer.close()
        os._exit(EXIT_ENDED_BY_FORCE)

    timer = threading.Timer(after_seconds, end)
    timer.daemon = True
    timer.start()


def _allow_many_files() -> None:
    """As many as the machine allows: the usual limit of 1,024 is less than what peers and a backlog can ask for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _open_standard_files() -> None:
    """Opens /dev/null in the place of each that is closed, or the next file opened would be taken for stderr."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
