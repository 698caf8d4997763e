"""The command setup."""

import sys
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from intake_svc import hooks
from intake_svc.settings import IntakeSettings
from intake_svc.setup.agents import Wanted, environment_of, files_of, text_of
from intake_svc.setup.merging import CannotMerge, undo, write
from recording.channel.watched import WrongFile
from service_kit.settings import load_settings
from service_kit.terminal.command import Argument, BadParameter, Option, echo
from service_kit.terminal.failures import Failed

EXIT_CANNOT_MERGE = 1


def setup(
    agent: Annotated[
        Literal["claude", "codex", "gemini", "copilot", "cursor", "opencode"], Argument(help="Which agent.")
    ],
    write_it: Annotated[bool, Option("--write", help="Merge it into the agent's files, with a backup.")] = False,
    undo_it: Annotated[bool, Option("--undo", help="Take back what --write added.")] = False,
    rules: Annotated[Path | None, Option(help="Rules on arguments for its hooks.")] = None,
    strict: Annotated[bool, Option("--strict", help="Hooks refuse what cannot be recorded.")] = False,
    home: Annotated[Path | None, Option(help="The home folder; yours when not given.")] = None,
) -> None:
    """Print an agent's own configuration: telemetry to this door, no prompts in it, hooks."""
    if write_it and undo_it:
        raise BadParameter("either --write or --undo", "--undo")
    if rules and not undo_it:
        _check_rules(rules)
    settings = load_settings(IntakeSettings)
    options = (*(("--rules", str(rules.resolve())) if rules else ()), *(("--mode", "strict") if strict else ()))
    wanted = Wanted(settings.listen, settings.http_listen, hook_program(), options, str(settings.hook_socket or ""))
    files = list(files_of(agent, wanted, home or Path.home()))
    for file in reversed(files) if undo_it else files:  # the first file's folders were made first
        try:
            if undo_it:
                echo(f"{file.path}: {'is as it was' if undo(file) else 'nothing to take back'}")
            elif write_it:
                echo(f"{file.path}: {'written' if write(file) else 'has it all'}")
            else:
                echo(f"# {file.path}\n{text_of(file)}")
        except OSError as error:
            place = error.filename or file.path
            raise Failed(f"{place} cannot be used: {error.strerror}", EXIT_CANNOT_MERGE) from None
        except (CannotMerge, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            told = error if isinstance(error, CannotMerge) else f"{file.path}: {error}"
            raise Failed(str(told), EXIT_CANNOT_MERGE) from None
    needed = {} if undo_it else environment_of(agent, wanted)
    if needed:
        echo("# and in the environment of the agent:")
        for name, value in needed.items():
            echo(f"export {name}={value}")


def _check_rules(path: Path) -> None:
    """Raises BadParameter: hooks could not use the file, and strict ones would refuse every tool."""
    from service_kit.rules.file import check_rules  # from the extra `rules`

    try:
        check_rules(path, path.read_bytes())
    except OSError as error:
        raise BadParameter(f"{path} cannot be read ({error.strerror})", "--rules") from None
    except WrongFile as error:
        raise BadParameter(str(error), "--rules") from None


def hook_program() -> tuple[str, ...]:
    """`onrecord-hook` as agents run it: by this Python, without its site-packages, which cost a third of the time."""
    return sys.executable, "-IS", str(Path(hooks.__file__).with_name("onrecord-hook"))
