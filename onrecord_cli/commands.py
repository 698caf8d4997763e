"""The commands up, run and chat."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

from gateway_svc.terminal import turns
from onrecord_cli import models
from onrecord_cli.folder import AlreadyRuns, Running, find, is_held, ledger_file, short, state_folder, why_ended
from onrecord_cli.pair import Pair, Plan, has_door, started
from onrecord_cli.processes import ServiceEnded
from service_kit import client
from service_kit.extras import is_missing
from service_kit.printable import printable
from service_kit.terminal.command import Argument, BadParameter, Option, Options
from service_kit.terminal.failures import Failed
from service_kit.terminal.printing import Printer

out, err = Printer(), Printer(stderr=True)
EXIT_NO_MODEL = 2
_LOOK_SECONDS = 0.3
_BEGIN_SECONDS = 60.0
_STAYS = "onrecord up"
_HOLDER = "another `onrecord` holds {}, and does not say what runs there"


class PairOptions(Options):
    """How services are started."""

    workspace: Annotated[
        Path | None, Option(help="The folder in which tools work; one of the gateway's own when not given.")
    ] = None
    gemma: Annotated[bool, Option("--gemma", help="Use the small model of the extra `gemma`.")] = False

    def plan(self, no_model: str, command: str, *, gateway: bool = True, door: bool = True) -> Plan:
        """What is to be started, by command. no_model: what is said where no model is found.

        Raises:
            BadParameter: the workspace is no folder.
            Failed: there is no model.
        """
        workspace = self.workspace.expanduser().absolute() if self.workspace else None
        if workspace and not workspace.is_dir():
            raise BadParameter(f"{workspace} is not a folder: make it, or name another", "--workspace")
        if gateway and self.gemma and not models.has_gemma():
            raise Failed(is_missing("gemma"), EXIT_NO_MODEL)
        found = models.Found({}, [])
        if gateway and not self.gemma:
            found = models.find_models(_environment())
            for note in found.notes:
                err.print(printable(note), style="yellow")
            if not models.told(found.settings):
                raise Failed(no_model, EXIT_NO_MODEL)
        return Plan(found.settings, workspace, gateway, door and has_door(), self.gemma, command == _STAYS, command)


class Turn(turns.TurnOptions):
    """A turn's options; where no address is given, that of the pair on the state folder."""

    target: Annotated[
        str, Option(envvar="GATEWAY_LISTEN", help="A gateway's address, host:port; your own one when not given.")
    ] = ""


def up(
    pair: PairOptions,
    gateway: Annotated[bool, Option(help="Whether a gateway runs, with a model.")] = True,
    door: Annotated[bool, Option(help="Whether the door for agents of others runs.")] = True,
) -> None:
    """Start the services on your own record, and keep them until ^C.

    The record is below ~/.local/share/onrecord, or where ONRECORD_STATE_DIR says.
    """
    folder = state_folder()
    if running := find(folder):
        if ends := why_ended(folder, running):
            raise Failed(f"what ran on {short(folder)} is shutting down: {ends}; try again in a moment")
        raise Failed(f"it runs already, as process {running.pid} on {short(folder)}")
    plan = pair.plan(models.NOT_FOUND, _STAYS, gateway=gateway, door=door)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    with _failures_are_sentences(folder):
        try:
            with started(folder, plan) as services:
                _say(folder, plan, services)
                for told in [*services.misspelt(), *services.stopped()]:
                    err.print(printable(told), style="yellow")
                while (ended := services.ended()) is None:
                    time.sleep(_LOOK_SECONDS)
                raise ServiceEnded(ended.why())
        except KeyboardInterrupt:
            err.take_line()
            err.print("ended: what was recorded is kept", style="dim")


def run(
    turn: Turn,
    pair: PairOptions,
    prompt: Annotated[str, Argument(help="The task; - or nothing reads it from stdin.")] = turns.STDIN,
) -> None:
    """Give an agent a task and watch it work; starts the services for that time where none run."""
    text = turns.read_prompt(prompt)
    with _gateway(turn, pair, "onrecord run"):
        turns.run(turn, text)


def chat(turn: Turn, pair: PairOptions) -> None:
    """Talk with an agent, turn after turn, in one session; end with ^D or /exit."""
    with _gateway(turn, pair, "onrecord chat"):
        turns.chat(turn)


@contextmanager
def _gateway(turn: Turn, pair: PairOptions, command: str) -> Iterator[None]:
    """Sets the address that turn is for: of the pair that runs, or of one that is started for as long as this lasts."""
    if turn.target:
        _refuse_what_starts(pair)
        yield
        return
    folder = state_folder()
    with _failures_are_sentences(folder):
        running = _begun(folder)
    if running is None:
        with _failures_are_sentences(folder):
            plan = pair.plan(models.not_found_to_start(short(folder)), command, door=False)
            err.print(
                f"starting on {short(folder)}; `onrecord up` would stay",
                style="dim",
                cut=True,
            )
            try:
                with started(folder, plan) as services:
                    client.nothing_runs, turn.target = "", services.running.gateway
                    yield
                return
            except AlreadyRuns:
                if turn.target or not (running := _begun(folder)):
                    raise
    if not running.gateway:
        raise Failed("what runs there has no gateway: end it, and say `onrecord up` with a model")
    _refuse_what_starts(pair)
    client.nothing_runs, turn.target = "", running.gateway
    yield


def _refuse_what_starts(pair: PairOptions) -> None:
    for option, is_given in (("--workspace", pair.workspace), ("--gemma", pair.gemma)):
        if is_given:
            raise BadParameter("is for services that this command starts, and they run already", option)


def _begun(folder: Path) -> Running | None:
    """What runs on folder, or what another process begins to start there; None where nobody does.

    Raises:
        AlreadyRuns: it has not begun for _BEGIN_SECONDS.
    """
    until = time.monotonic() + _BEGIN_SECONDS
    while is_held(folder):
        if running := find(folder):
            return running
        if time.monotonic() > until:
            raise AlreadyRuns
        time.sleep(0.1)
    return None


@contextmanager
def _failures_are_sentences(folder: Path) -> Iterator[None]:
    try:
        yield
    except AlreadyRuns:
        raise Failed(_HOLDER.format(folder)) from None
    except ServiceEnded as ended:
        raise Failed(str(ended)) from None
    except OSError as error:
        at = Path(str(error.filename or ""))
        if not (at.is_relative_to(folder) or folder.is_relative_to(at)):  # one above it could not be made
            raise
        raise Failed(f"{error.filename} cannot be used: {error.strerror}") from None


def _say(folder: Path, plan: Plan, pair: Pair) -> None:
    """What runs where, in five lines."""
    running = pair.running
    out.print(f"ledger   {running.ledger:16} {short(ledger_file(folder))}")
    if plan.gateway:
        engines = "openai · gemma-3-270m" if plan.gemma else models.told(plan.engines)
        out.print(f"gateway  {running.gateway:16} {printable(engines)}")
        workspace = plan.workspace or Path(_environment().get("GATEWAY_WORKSPACE") or folder / "gateway" / "workspace")
        out.print(f"tools    {printable(pair.jail())}, in {short(workspace)}")
    if plan.door:
        port = running.door_http.rpartition(":")[2]
        out.print(f"door     {running.door:16} HTTP on {port}; next: onrecord agents setup claude")
    elif not has_door():
        out.print(f"door     not here: {is_missing('intake')}")
    what = 'onrecord run "…" in another terminal; ' if plan.gateway else ""
    out.print(f"ready    onrecord {version('onrecord')}: {what}^C here ends all", style="green")


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if value}


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
