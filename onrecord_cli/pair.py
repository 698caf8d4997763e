"""Starts the ledger, the gateway and the door on a folder, and ends them: the gateway first, the ledger last."""

import importlib.util
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from onrecord_cli.folder import DOOR_HTTP_PORT, DOOR_PORT, Running, held, ledger_file, tell, tell_end
from onrecord_cli.processes import Service, ServiceEnded
from service_kit.terminal.failures import as_typed

_KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GATEWAY_OPENAI_API_KEY", "GATEWAY_ANTHROPIC_API_KEY")
"""What no service but the gateway is to have."""
ANY_PORT = "127.0.0.1:0"


class Plan(NamedTuple):
    """What is started."""

    engines: Mapping[str, str]
    """The gateway's variables that name its engines, besides the environment's."""
    workspace: Path | None = None
    """Where tools work; None: a folder of the gateway's own."""
    gateway: bool = True
    door: bool = True
    gemma: bool = False
    usual_ports: bool = True
    """Whether they listen at their usual ports, where those are free; else at any."""
    command: str = "onrecord up"
    """What starts it."""


class Pair:
    """The services that run."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        """Starts nothing yet."""
        self.services: dict[str, Service] = {}
        self.running = Running(os.getpid(), "", command=plan.command)
        self._folder, self._plan = folder, plan
        self._logs = folder / "log"
        self._logs.mkdir(mode=0o700, exist_ok=True)

    def start(self) -> None:
        """Starts all, and returns once they listen.

        Raises:
            ServiceEnded: one does not.
        """
        audit = {"AUDIT_DB": str(ledger_file(self._folder)), "AUDIT_LISTEN": self._listen(50052)}
        ledger = self._start("ledger", ["audit_svc", "serve"], audit, "AUDIT").wait_until_listening()
        self.running = self.running._replace(ledger=ledger)
        if self._plan.door:
            self._start(
                "door",
                ["intake_svc", "serve"],
                {
                    "INTAKE_STATE_DIR": str(self._folder / "intake"),
                    "INTAKE_LISTEN": self._listen(DOOR_PORT),
                    "INTAKE_HTTP_LISTEN": self._listen(DOOR_HTTP_PORT),
                },
                "INTAKE",
            )
        if self._plan.gateway:
            gateway = {
                "GATEWAY_STATE_DIR": str(self._folder / "gateway"),
                "GATEWAY_LISTEN": self._listen(50051),
                **self._plan.engines,
                **(self._gemma() if self._plan.gemma else {}),
            }
            if self._plan.workspace:
                gateway["GATEWAY_WORKSPACE"] = str(self._plan.workspace)
            self._start("gateway", ["gateway_svc", "serve"], gateway, "GATEWAY")
        for name in ("gateway", "door"):
            if service := self.services.get(name):
                address = service.wait_until_listening()
                self.running = Running(**{**self.running._asdict(), name: address})
        if door := self.services.get("door"):
            self.running = self.running._replace(door_http=door.address("http.listening"))

    def ended(self) -> Service | None:
        """One that has ended by itself."""
        return next((service for service in self.services.values() if service.process.poll() is not None), None)

    def lost_a_port(self) -> bool:
        """Whether something has taken a port between the look at it and its service."""
        told = [event.get("event") for service in self.services.values() for event in service.events()]
        return not {"service.cannot_listen", "http.cannot_listen"}.isdisjoint(told)

    def end(self) -> None:
        """Ends all: first those that record, whose last rows the ledger then has."""
        last = [self.services[name] for name in ("ledger", "model") if name in self.services]
        for services in ([each for each in self.services.values() if each not in last], last):
            for service in services:
                service.end()
            for service in services:
                service.wait()

    def jail(self) -> str:
        """How commands of agents are confined, as the gateway's log tells."""
        for event in self.services["gateway"].events():
            match event.get("event"):
                case "sandbox.ready":
                    return f"commands in {event.get('jail')}"
                case "sandbox.off":
                    return "commands without a sandbox"
                case "sandbox.missing":
                    return "no commands: no sandbox works here"
        return ""

    def stopped(self) -> list[str]:
        """A sentence for each stop that the gateway has found in force, with what lifts it."""
        gateway = self.services.get("gateway")
        stops = [event for event in gateway.events() if event.get("event") == "agents.stopped"] if gateway else []
        by_scope = {event.get("scope"): str(event.get("stop_id")) for event in reversed(stops)}  # the oldest of each
        if not by_scope:
            return []
        from service_kit.producing.stop import what_lifts  # only where something is stopped

        return [as_typed(f"{scope} is stopped: {what_lifts(stop_id)}") for scope, stop_id in by_scope.items()]

    def misspelt(self) -> list[str]:
        """A sentence for each variable that is no setting of the service that it seems to be for."""
        told = [event for service in self.services.values() for event in service.events()]
        return [str(event.get("hint")) for event in told if event.get("event") == "settings.unknown"]

    def _start(self, name: str, words: list[str], settings: Mapping[str, str], prefix: str) -> Service:
        ours = {f"{prefix}_LOG_STYLE": "json", f"{prefix}_LOG_LEVEL": "info"}
        if name in ("gateway", "door"):
            ours[f"{prefix}_AUDIT_TARGET"] = self.running.ledger
        environ = {key: value for key, value in os.environ.items() if name == "gateway" or key not in _KEYS}
        environ = {**settings, **{key: value for key, value in environ.items() if value}, **ours}
        if name == "gateway" and self._plan.workspace:
            environ["GATEWAY_WORKSPACE"] = str(self._plan.workspace)
        self.services[name] = Service(name, words, environ, self._logs / f"{name}.log")
        return self.services[name]

    def _gemma(self) -> dict[str, str]:
        """Starts the model of the extra `gemma`; returns the gateway's variables for it."""
        url = self._start("model", ["onrecord_cli.gemma"], {}, "ONRECORD").wait_until_listening()
        return {
            "GATEWAY_OPENAI_URL": url,
            "GATEWAY_OPENAI_MODEL": "gemma-3-270m",
            "GATEWAY_OPENAI_LOCAL": "true",
            "GATEWAY_DEFAULT_ENGINE": "openai",
            "GATEWAY_MAX_STEPS": "3",
        }

    def _listen(self, port: int) -> str:
        return f"127.0.0.1:{port}" if self._plan.usual_ports and _is_free(port) else ANY_PORT


@contextmanager
def started(folder: Path, plan: Plan) -> Iterator[Pair]:
    """The services on folder while the context lasts.

    Raises:
        AlreadyRuns: they run on it already.
        ServiceEnded: one does not start.
        OSError: the folder cannot be used.
    """
    with held(folder):
        pair = Pair(folder, plan)
        try:
            try:
                pair.start()
            except ServiceEnded:
                if not (plan.usual_ports and pair.lost_a_port()):
                    raise
                pair.end()
                pair = Pair(folder, plan._replace(usual_ports=False))
                pair.start()
            tell(folder, pair.running)
            yield pair
        finally:
            ended = pair.ended()
            what = f"{ended.how()}, and the others end with it" if ended else pair.running.ended("was told to end")
            tell_end(folder, what)
            pair.end()


def has_door() -> bool:
    """Whether what the door needs is installed: the extra `intake`."""
    return all(importlib.util.find_spec(name) for name in ("starlette", "uvicorn", "opentelemetry.proto"))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
