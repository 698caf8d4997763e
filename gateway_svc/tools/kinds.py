"""The tools of this installation: one for each module of the package that defines a KIND."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import structlog

from gateway_svc import tools
from gateway_svc.discovery import discover
from gateway_svc.programs import NO_JAIL
from gateway_svc.tools import Surroundings, Tool, ToolKind
from gateway_svc.tools.jail.sandbox import DOES_WITHOUT, JailSettings, find_sandbox
from gateway_svc.tools.workers import Workers
from recording.show import Show
from service_kit.settings import check_disk, load_settings

log = structlog.get_logger(__name__)


@cache
def kinds() -> Mapping[str, ToolKind]:
    """The tools by their names."""
    return {kind.name: kind for kind in discover(tools, ToolKind)}


def shown() -> Mapping[str, Mapping[str, Show]]:
    """How the record shows the parameters of each tool."""
    return {name: kind.shown for name, kind in kinds().items()}


@dataclass(frozen=True, slots=True)
class Offered:
    """The tools that a deployment offers."""

    tools: list[Tool]
    jail: str
    """What confines the programs that some of them run: a sandbox's name, or NO_JAIL; empty where none runs any."""
    left_out: Mapping[str, str]
    """Why others are not offered, by name."""
    unconfined: Collection[str] = ()
    """The names of the tools whose programs nothing confines."""


def build_tools(names: Collection[str], call_seconds: float, hide: Collection[Path]) -> Offered:
    """Builds the tools with these names that can be offered here.

    `call_seconds` is the time limit of a call. Paths in `hide` are hidden from programs.

    Raises:
        SettingsError: the tools are not available as configured.
        SystemExit: with code 2, if a setting is wrong.
    """
    jail_settings = load_settings(JailSettings)
    check_disk(jail_settings)
    jail = find_sandbox(jail_settings.sandbox, visible=jail_settings.visible, hide=list(hide))
    without = jail_settings.sandbox in DOES_WITHOUT
    surroundings = Surroundings(jail, Workers(), call_seconds)
    built: list[Tool] = []
    left_out: dict[str, str] = {}
    confined_by = ""
    unconfined: list[str] = []
    for name in names:
        kind = kinds()[name]
        settings = load_settings(kind.settings)
        check_disk(settings)
        if kind.starts_programs and jail is None and not without:
            reason = "there is no jail for its programs; GATEWAY_BASH_SANDBOX=off offers it without one"
            log.warning("tools.not_offered", tool=name, reason=reason)
            left_out[name] = reason
            continue
        if kind.starts_programs:
            confined_by = jail.name if jail else NO_JAIL
            unconfined += [] if jail else [name]
        built.append(kind.build(settings, surroundings) if kind.build else kind.tool())
    return Offered(built, confined_by, left_out, unconfined)
