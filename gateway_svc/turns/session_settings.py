"""The settings of a session, checked where a client gives them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.errors import InvalidRequest
from gateway_svc.turns.turn import Runner, ShadowRunner

MAX_INPUT_BYTES = 2**20
MAX_PROMPT_BYTES = 2**18
"""Of a system prompt, where the deployment says nothing else."""
MAX_MODEL_CHARACTERS = 256
MAX_SHADOWS = 4
FIELDS: tuple[Any, ...] = tuple(pb.SessionSettings.DESCRIPTOR.fields_by_name)
MAX_CLAIM, MAX_SOFTWARE = 128, 64
"""Characters of a name, and of an agent's name or version."""
MAX_LABELS, MAX_LABEL_KEY, MAX_LABEL_VALUE = 32, 64, 256


def check_settings(
    settings: pb.SessionSettings, runner: Callable[[str], Runner], path: str, max_prompt_bytes: int
) -> None:
    """Checks what a client has given; `runner` finds an engine's, and path is where the request has them.

    Raises:
        EngineNotConfigured, InvalidRequest: it cannot be had.
    """
    check_length(settings.system_prompt, f"{path}.system_prompt", max_prompt_bytes)
    check_model(settings.model, f"{path}.model")
    check_budget(settings, f"{path}.max_cost_micros")
    _check_labels(settings.labels, f"{path}.labels")
    if settings.engine:
        runner(settings.engine)
    if settings.HasField("fallback"):
        _check_choice(settings.fallback, runner, f"{path}.fallback")
    if len(settings.shadows) > MAX_SHADOWS:
        raise InvalidRequest(f"{path}.shadows: a session has at most {MAX_SHADOWS} shadows", f"{path}.shadows")
    for choice in settings.shadows:
        if not isinstance(_check_choice(choice, runner, f"{path}.shadows"), ShadowRunner):
            raise InvalidRequest(
                f"engine {choice.engine} brings its own tools, which cannot be kept from running", f"{path}.shadows"
            )


def masked(request: pb.UpdateSessionRequest) -> pb.SessionSettings:
    """The settings that a request names in its mask, and nothing else.

    Raises:
        InvalidRequest: the mask is empty, or names what is no field of the settings.
    """
    paths = request.update_mask.paths
    if not paths:
        raise InvalidRequest(f"update_mask is empty: name what is to change, of {', '.join(FIELDS)}", "update_mask")
    if others := sorted(set(paths) - set(FIELDS)):
        raise InvalidRequest(
            f"update_mask: {others[0][:64]!r} is not a field of settings, which are {', '.join(FIELDS)}", "update_mask"
        )
    given = pb.SessionSettings()
    given.CopyFrom(request.settings)
    for name in set(FIELDS) - set(paths):
        given.ClearField(name)
    return given


def updated(settings: pb.SessionSettings, paths: Iterable[Any], given: pb.SessionSettings) -> pb.SessionSettings:
    """The settings with the named fields as they are given; those that are not set there are taken away.

    A new engine has its own default model, unless the model is named too.
    """
    changed = pb.SessionSettings()
    changed.CopyFrom(settings)
    for name in (named := set(paths)):
        changed.ClearField(name)
    if "engine" in named and given.engine != settings.engine:
        changed.model = ""
    changed.MergeFrom(given)
    return changed


def check_claims(request: pb.RunTurnRequest) -> None:
    """Checks what a client says of whom it acts for and which agent it is.

    Raises:
        InvalidRequest: one is too long, or a version is there without a name.
    """
    claims = {
        "on_behalf_of": (request.on_behalf_of, MAX_CLAIM),
        "parent_turn_id": (request.parent_turn_id, MAX_CLAIM),
        "agent.name": (request.agent.name, MAX_SOFTWARE),
        "agent.version": (request.agent.version, MAX_SOFTWARE),
    }
    for field, (text, limit) in claims.items():
        if len(text) > limit:
            raise InvalidRequest(f"{field} is longer than {limit} characters", field)
    if request.agent.version and not request.agent.name:
        raise InvalidRequest("agent.name is empty, and agent.version is not: name the agent", "agent.name")


def check_length(text: str, field: str, most: int = MAX_INPUT_BYTES) -> None:
    """Bounds a text.

    Raises:
        InvalidRequest: it is too long.
    """
    if len(text.encode()) > most:
        raise InvalidRequest(f"{field} is longer than {most} bytes", field)


def check_model(name: str, field: str) -> None:
    """Bounds a model's name.

    Raises:
        InvalidRequest: it is too long.
    """
    if len(name) > MAX_MODEL_CHARACTERS:
        raise InvalidRequest(f"{field} is longer than {MAX_MODEL_CHARACTERS} characters", field)


def check_budget(given: pb.SessionSettings | pb.RunTurnRequest, field: str) -> None:
    """Checks the budget of a session or of a turn.

    Raises:
        InvalidRequest: it is negative.
    """
    if given.max_cost_micros < 0:
        raise InvalidRequest(f"{field} is negative: leave it unset for no budget", field)


def budget(given: pb.SessionSettings | pb.RunTurnRequest) -> int | None:
    """The budget of a session or of a turn in millionths of a US dollar; None where it has none."""
    return given.max_cost_micros if given.HasField("max_cost_micros") else None


def _check_choice(choice: pb.EngineChoice, runner: Callable[[str], Runner], field: str) -> Runner:
    if not choice.engine:
        raise InvalidRequest(f"{field}.engine is empty: name the engine", f"{field}.engine")
    check_model(choice.model, f"{field}.model")
    return runner(choice.engine)


def _check_labels(labels: Mapping[str, str], field: str) -> None:
    for key, value in labels.items():
        if not 0 < len(key) <= MAX_LABEL_KEY or len(value) > MAX_LABEL_VALUE:
            raise InvalidRequest(
                f"{field}: a key has 1 to {MAX_LABEL_KEY} characters and a value at most {MAX_LABEL_VALUE}", field
            )
    if len(labels) > MAX_LABELS:
        raise InvalidRequest(f"{field}: a session has at most {MAX_LABELS}", field)
