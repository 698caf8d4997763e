"""Settings from the environment: what is wrong is told in a sentence that names the variable and shows no secret."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import AfterValidator, AliasChoices, AliasPath, BeforeValidator, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsError

S = TypeVar("S", bound=BaseSettings)

EXIT_WRONG_SETTINGS = 2


def split_commas(value: Any) -> Any:
    """The parts of a text between its commas, without blanks around them; anything else as it is."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


CommaList = Annotated[list[str], NoDecode, BeforeValidator(split_commas)]


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"{path} names a home folder that is not there: give an absolute path") from None


HomePath = Annotated[Path, AfterValidator(_expanded)]
"""A path that may begin with `~`; with `validate_default=True` as its default too. Not every account has a home."""

_URL_USERINFO = re.compile(r"(?<=://)[^/@\s]*@")


def load_settings(cls: type[S]) -> S:
    """Reads the settings that cls describes from the environment.

    Raises:
        SystemExit: with code 2, when a variable is wrong or missing, after a sentence for each on stderr.
    """
    try:
        return cls()
    except ValidationError as error:
        refuse(sentences_of(cls, error))
    except SettingsError as error:
        # Raised for a list or a map that is no JSON: the message names the field in quotes, and quotes no value.
        field = re.search(r'field "(\w+)"', str(error))
        refuse([f"{_variable(cls, field[1]) if field else 'A setting'}: not valid JSON"])


def describe_settings(settings: BaseSettings) -> dict[str, str]:
    """The settings by field name, secrets and the userinfo of URLs masked, for one line in the log."""
    return {name: _URL_USERINFO.sub("***@", str(getattr(settings, name))) for name in type(settings).model_fields}


def refuse(sentences: list[str]) -> NoReturn:
    """Ends the process with code 2 and the sentences on stderr."""
    for sentence in sentences:
        sys.stderr.write(f"{sentence}\n")
    raise SystemExit(EXIT_WRONG_SETTINGS)


def variables(cls: type[BaseSettings]) -> set[str]:
    """The environment variables that settings are read from, each by its first name."""
    return {_variable(cls, name) for name in cls.model_fields}


def sentences_of(cls: type[BaseSettings], error: ValidationError) -> list[str]:
    """A sentence for each setting that is wrong, which begins with its variable."""
    sentences = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        reason = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "missing":
            reason = "is not set, and has no default"
        if problem["loc"]:
            reason = f"{_variable(cls, str(problem['loc'][0]))}: {reason}"
        sentences.append(reason)
    return sentences


def _variable(cls: type[BaseSettings], location: str) -> str:
    """The environment variable of a field that pydantic names by its own name or by one of its aliases."""
    for name, field in cls.model_fields.items():
        aliases = list(_aliases(field.validation_alias))
        if location == name and not aliases:
            return f"{cls.model_config.get('env_prefix', '')}{name}".upper()
        if location in {name, *aliases}:
            # pydantic says the first alias, whichever was set.
            return next((alias for alias in aliases if alias in os.environ), aliases[0])
    return location


def _aliases(alias: str | AliasPath | AliasChoices | None) -> Iterator[str]:
    if isinstance(alias, str):
        yield alias
    elif isinstance(alias, AliasChoices):
        for choice in alias.choices:
            yield from _aliases(choice)
    elif isinstance(alias, AliasPath):
        yield str(alias.path[0])
