"""Settings from the environment: what is wrong is told in a sentence that names the variable and shows no secret."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args

from pydantic import AliasChoices, AliasPath, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from recording.channel.watched import WrongFile
from service_kit.setting_types import OnDisk
from service_kit.terminal.failures import Failed, tell
from service_kit.terminal.hints import meant

S = TypeVar("S", bound=BaseSettings)

EXIT_WRONG_SETTINGS = 2
MAX_SHOWN_CHARACTERS = 80

_REASONS = {
    "missing": "is not set, and has no default",
    "bool_parsing": "must be true or false",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
}
"""By pydantic's types of errors, where its own words are for programmers."""


_OF_KUBERNETES = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?$")
"""https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables"""


class Settings(BaseSettings):
    """Settings from the environment. A variable that is empty is one that is not set."""

    # an empty default says that there is none, which no variable can say
    model_config = SettingsConfigDict(env_ignore_empty=True, validate_default=False)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment alone, and what a caller gives: the sources that read files would take as long again."""
        return init_settings, env_settings


def load_settings(cls: type[S], unknown: Callable[[], list[str]] = list) -> S:
    """Reads the settings that cls describes from the environment.

    unknown: sentences on variables that are no setting (see unknown_variables), told when one is wrong or missing: it
    may be missing for being misspelt.

    Raises:
        SystemExit: with code 2, when a variable is wrong or missing, after a sentence for each on stderr.
    """
    try:
        return cls()
    except ValidationError as error:
        refuse([*sentences_of(cls, error), *unknown()])
    except SettingsError as error:
        # Raised for a list or a map that is no JSON: the message names the field in quotes, and quotes no value.
        field = re.search(r'field "(\w+)"', str(error))
        refuse([f"{variable_of(cls, field[1]) if field else 'A setting'}: not valid JSON"])


def describe_settings(settings: BaseSettings, *, only_given: bool = False) -> dict[str, str]:
    """The settings by field name for one line in the log. Secrets are masked, and of URLs what may hold one.

    only_given: without those that are as they are by default.
    """
    names = [
        name
        for name, field in type(settings).model_fields.items()
        if not only_given or getattr(settings, name) != field.get_default(call_default_factory=True)
    ]
    return {name: str(_masked(getattr(settings, name))) for name in names}


def _masked(value: Any) -> Any:
    match value:
        case str():
            return without_secrets(value) if "://" in value else value
        case list() | tuple() | set() | frozenset():
            return [_masked(part) for part in value]
        case dict():
            return {_masked(key): _masked(part) for key, part in value.items()}
        case _:
            return value


def without_secrets(text: str) -> str:
    """Text without what may be a password in a URL, however wrong the rest: before an @, or behind a ? or #."""
    scheme, separator, rest = text.rpartition("://") if text.count("://") == 1 else ("", "", text)
    user, at, shown = rest.rpartition("@")
    if at and re.search(r"[?#]", user):
        return f"{scheme}{separator}***"  # it cannot be told which is which
    shown = re.sub(r"([?#]).*", r"\1***", shown, flags=re.DOTALL)
    return f"{scheme}{separator}{'***@' if at else ''}{shown}"


def refuse(sentences: list[str]) -> NoReturn:
    """Ends the process with code 2 and the sentences on stderr."""
    tell(Failed("\n".join(sentences), EXIT_WRONG_SETTINGS))
    raise SystemExit(EXIT_WRONG_SETTINGS)


def variables(cls: type[BaseSettings]) -> set[str]:
    """The environment variables that settings are read from, each by its first name."""
    return {variable_of(cls, name) for name in cls.model_fields}


def unknown_variables(prefix: str, *settings: type[BaseSettings]) -> list[str]:
    """A sentence for each variable that begins with prefix and is no setting, such as one that is misspelt.

    Those that Kubernetes sets for a Service of such a name are not meant.
    """
    known = {
        alias.upper()
        for cls in settings
        for name, field in cls.model_fields.items()
        for alias in [variable_of(cls, name), *_aliases(field.validation_alias)]
    }
    return [
        f"{variable} is not a setting{meant(variable, known)}"
        for variable in sorted(set(os.environ) - known)
        if variable.startswith(prefix) and not _OF_KUBERNETES.search(variable)
    ]


def sentences_of(cls: type[BaseSettings], error: ValidationError) -> list[str]:
    """A sentence for each setting that is wrong: its variable, what is allowed, and what was given if that is shown."""
    reasons: dict[str, list[str]] = {}
    given: dict[str, str] = {}
    for problem in error.errors(include_url=False, include_context=False):
        reason = _REASONS.get(problem["type"], problem["msg"].removeprefix("Value error, "))
        field = str((*problem["loc"], "")[0])
        reasons.setdefault(field, []).append(reason.replace("Input should be", "must be"))
        given[field] = "" if problem["type"] == "missing" else _shown(cls, field, problem["input"])
    # a rule over several settings has no field, and names the variables itself
    return [
        f"{variable_of(cls, field)}: {' or '.join(dict.fromkeys(said))}{given[field]}" if field else "; ".join(said)
        for field, said in reasons.items()
    ]


def check_disk(*parts: BaseSettings) -> None:
    """Looks whether what settings name on this machine can be used.

    Raises:
        SystemExit: with code 2, after a sentence on stderr for each that cannot.
    """
    if wrong := [sentence for settings in parts for sentence in _wrong_on_disk(settings)]:
        refuse(wrong)


def name_variable(settings: BaseSettings, error: WrongFile) -> str:
    """The error's message behind the variable that names the file."""
    for name in type(settings).model_fields:
        if getattr(settings, name) == error.path:
            return f"{variable_of(type(settings), name)}: {error}"
    return str(error)


def _wrong_on_disk(settings: BaseSettings) -> Iterator[str]:
    refused: list[Path] = []
    for name, field in type(settings).model_fields.items():
        marks = [mark for mark in _marks(field) if isinstance(mark, OnDisk)]
        value = getattr(settings, name)
        for path in value if isinstance(value, list) else [value]:
            for mark in marks if isinstance(path, Path) else ():
                if any(map(path.is_relative_to, refused)):
                    continue  # a folder that follows from another one
                try:
                    mark.check(path)
                except WrongFile as error:
                    refused.append(path)
                    shown = str(error)
                    if mark.may_be_secret and not _leads_somewhere(path):
                        shown = "must name a file (not shown, since it may be the secret itself)"
                    yield f"{variable_of(type(settings), name)}: {shown}"


def _leads_somewhere(path: Path) -> bool:
    try:
        return path.is_absolute() and path.parent.is_dir()
    except OSError:
        return False


def _marks(field: FieldInfo) -> Iterator[Any]:
    """What annotates a field or a part of its type."""
    waiting: list[Any] = [*field.metadata, field.annotation]
    for part in waiting:
        yield part
        waiting += get_args(part)


def _shown(cls: type[BaseSettings], location: str, value: Any) -> str:
    """What was given, in brackets; empty where it is, or may be, a secret."""
    for name, field in cls.model_fields.items():
        if location in {name, *_aliases(field.validation_alias)}:
            marks = list(_marks(field))
            if SecretStr in marks or any(isinstance(mark, OnDisk) and mark.may_be_secret for mark in marks):
                return ""
    return f" (given: {without_secrets(str(value))[:MAX_SHOWN_CHARACTERS]!r})"


def variable_of(cls: type[BaseSettings], location: str) -> str:
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
