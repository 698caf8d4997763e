"""What a command says of its parameters, and how it ends.

A command is a function. Its parameters are options, `Annotated[str, Option(help="…")]`, or arguments; a parameter
whose type is a class of Options stands for those that it declares, so that commands can share them.
"""

import sys
from typing import Any


class Option:
    """An option. A bool with a name of its own is a flag; one without is a pair, --watch and --no-watch."""

    def __init__(
        self,
        *names: str,
        help: str = "",  # noqa: A002 - the field's word
        envvar: str = "",
        min: float | None = None,  # noqa: A002
        max: float | None = None,  # noqa: A002
        metavar: str | None = None,
        known: str = "",
    ) -> None:
        """names: by default that of the parameter. envvar: a variable that is asked where the option is not given.

        known: a function that lists values for a shell, "module:name".
        """
        self.names, self.help, self.envvar, self.metavar, self.known = names, help, envvar, metavar, known
        self.min, self.max = min, max


class Filled(Option):
    """An option whose empty value is refused: a shell's variable that is not set is not meant to leave it out."""

    without = ""
    """What leaving it out is for."""


class Filter(Filled):
    """An option that says what is asked for."""

    without = " for everything"


class Argument(Option):
    """What is given by its place. A list takes all that are left."""

    def __init__(
        self,
        help: str = "",  # noqa: A002
        metavar: str | None = None,
        known: str = "",
        empty: str = "give a value",
    ) -> None:
        """empty: what is to be done where an empty text is given."""
        super().__init__(help=help, metavar=metavar, known=known)
        self.empty = empty


class Options:
    """Options that commands share: a class declares each as a parameter does, with its default."""

    def __init__(self, **given: Any) -> None:
        """Takes what was given; for the rest the defaults stand."""
        vars(self).update(given)


class BadParameter(Exception):
    """What was given is wrong: the program says so, with its usage, and ends with exit code 2."""

    def __init__(self, message: str, param_hint: str = "") -> None:
        """param_hint: the option or the argument that it is about."""
        super().__init__(message)
        self.message, self.param_hint = message, param_hint


class Exit(Exception):
    """The program ends with an exit code."""

    def __init__(self, code: int = 0) -> None:
        super().__init__(code)
        self.code = code


def echo(text: Any = "", *, err: bool = False) -> None:
    """A line on stdout, or on stderr."""
    file = sys.stderr if err else sys.stdout
    file.write(f"{text}\n")
    file.flush()
