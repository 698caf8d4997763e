"""The arguments of a call: their JSON Schema for the model, and the validation of what the model wrote.

An error names fields and what is wrong with them. It never quotes a value or a name that the model invented, since it
is recorded too.
"""

import json
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from recording.show import Show
from service_kit.bounds import ARGUMENT_FIELDS, ARGUMENT_VALUES, Exceeded, check_json

MAX_ARGUMENT_CHARACTERS = 4_000_000
MAX_TOLD_PROBLEMS = 8


class Arguments(BaseModel):
    """The base of every tool's parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)


A = TypeVar("A", bound=BaseModel)


class ArgumentsError(ValueError):
    """The arguments cannot be used; the message is for the model and the record."""

    def __init__(self, message: str, *, told: str = "") -> None:
        """`told` is the message for the model, if it says more than the record may have."""
        super().__init__(message)
        self.told = told or message


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain a NUL character")
    return text


PlainText = Annotated[str, AfterValidator(_without_nul)]
"""Text that the operating system accepts as a name or an argument."""
PathText = Annotated[PlainText, Field(min_length=1, max_length=4096), Show.PATH]
"""The path of a file or folder in the workspace. All such parameters have this type, by which tests find them."""
Number = Annotated[int | None, Show.NUMBER]
Seconds = Annotated[float | None, Show.NUMBER]
Flag = Annotated[bool | None, Show.NUMBER]


def parse_arguments(text: str, parameters: type[A]) -> A:
    """Parses the arguments that a model wrote as JSON text. Empty text means no arguments.

    Raises:
        ArgumentsError: the text is not a JSON object, or does not match `parameters`.
    """
    try:
        return parameters.model_validate(parse_object(text))
    except ValidationError as error:
        raise ArgumentsError(_problems(error, parameters)) from None


def parse_object(text: str) -> dict[str, Any]:
    """Parses the object that a model wrote as JSON text. Empty text means an empty object.

    Raises:
        ArgumentsError: the text is not a JSON object.
    """
    if len(text) > MAX_ARGUMENT_CHARACTERS:
        raise ArgumentsError(f"the arguments are longer than {MAX_ARGUMENT_CHARACTERS} characters")
    if not text.strip():
        return {}
    try:
        check_json(text, ARGUMENT_VALUES)
        value = _DECODER.decode(text)
    except ArgumentsError:
        raise
    except Exceeded as over:
        raise ArgumentsError(f"there are {over}") from None
    except RecursionError:
        raise ArgumentsError("the arguments are nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ArgumentsError(f"the arguments are not valid JSON (at character {error.pos})") from None
    except ValueError:  # a number with more digits than Python converts
        raise ArgumentsError("the arguments hold a number that is too long") from None
    if not isinstance(value, dict):
        raise ArgumentsError("the arguments must be a JSON object")
    if len(value) > ARGUMENT_FIELDS:
        raise ArgumentsError(f"the arguments have more than {ARGUMENT_FIELDS:,} fields")
    _refuse_half_characters(text, value)
    return value


def _refuse_half_characters(text: str, value: dict[str, Any]) -> None:
    """Refuses lone surrogates, which JSON allows, but no file or message can hold."""
    try:
        text.encode()
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ArgumentsError("the arguments hold half of a surrogate pair") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ArgumentsError("the arguments name a field twice")
    return value


def _refuse_constant(_: str) -> NoReturn:
    raise ArgumentsError("the arguments hold NaN or Infinity, which JSON does not have")


_DECODER = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)


def _problems(error: ValidationError, parameters: type[BaseModel]) -> str:
    told: list[str] = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        if problem["type"] == "extra_forbidden":
            told.append(f"unknown field (the fields are {', '.join(parameters.model_fields)})")
        else:
            place = ".".join(
                str(part) for part in problem["loc"] if isinstance(part, int) or part in parameters.model_fields
            )
            told.append(f"{place}: {problem['msg'].removeprefix('Value error, ')}")
    unique = list(dict.fromkeys(told))
    more = [f"and {len(unique) - MAX_TOLD_PROBLEMS} more"] if len(unique) > MAX_TOLD_PROBLEMS else []
    return "; ".join(unique[:MAX_TOLD_PROBLEMS] + more)


def json_schema(parameters: type[BaseModel]) -> dict[str, object]:
    """The JSON Schema of `parameters`, in the plain form that small models and all model servers accept.

    References are inlined. Titles and null alternatives are left out, since what may be null may also be missing.
    """
    schema = parameters.model_json_schema()
    simple = _simplified(schema, schema.get("$defs", {}))
    simple.pop("description", None)  # the class's docstring, which is not for the model
    simple.setdefault("properties", {})
    simple["additionalProperties"] = False
    return simple


def _simplified(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in schema:
        choices = [choice for choice in schema["anyOf"] if choice.get("type") != "null"]
        if len(choices) == 1:
            schema = {**choices[0], **{k: v for k, v in schema.items() if k != "anyOf"}}
    if "$ref" in schema:
        schema = {**definitions[schema["$ref"].rsplit("/", 1)[-1]], **{k: v for k, v in schema.items() if k != "$ref"}}
    simple: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("$defs", "title") or (key == "default" and value is None):
            continue
        if key == "properties":
            simple[key] = {name: _simplified(field, definitions) for name, field in value.items()}
        elif key in ("anyOf", "oneOf", "allOf"):
            simple[key] = [_simplified(choice, definitions) for choice in value]
        elif key == "items":
            simple[key] = _simplified(value, definitions)
        else:
            simple[key] = value
    return simple
