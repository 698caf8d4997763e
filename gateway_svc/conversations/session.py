"""What a session is, apart from what is said in it."""

import re
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

from google.protobuf.json_format import MessageToDict
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.turns.account import Totals

SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
"""What a session id may look like, since it is a part of a file's name."""


def may_see(owner: str, viewer: str | None) -> bool:
    """Whether the caller `viewer` may see what `owner` began, empty if callers have no names; None: who sees all."""
    return viewer is None or owner in ("", viewer)


@dataclass(slots=True)
class SessionState:
    """A session without its messages."""

    id: str
    settings: pb.SessionSettings = field(default_factory=pb.SessionSettings)
    """With the engine and the model of its last turn, or those that its next turn takes."""
    status: int = common_pb2.SESSION_STATUS_IDLE
    revision: int = 0
    turns: int = 0
    totals: Totals = field(default_factory=Totals)
    created_at_ms: int = 0
    updated_at_ms: int = 0
    shadow_totals: Totals = field(default_factory=Totals)
    owner: str = ""
    """The caller that created it; empty if callers have no names."""

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The state that was kept."""
        rest = dict(value)
        settings = settings_from_json(rest)
        totals, shadow_totals = (Totals.from_json(rest.pop(name, {})) for name in ("totals", "shadow_totals"))
        return cls(**rest, settings=settings, totals=totals, shadow_totals=shadow_totals)

    def to_json(self) -> dict[str, Any]:
        """The state as it is kept."""
        return {
            **{name: getattr(self, name) for name in self.__slots__},
            "settings": settings_to_json(self.settings),
            "totals": self.totals.to_json(),
            "shadow_totals": self.shadow_totals.to_json(),
        }

    def copy(self) -> Self:
        """The state as it is now."""
        settings = pb.SessionSettings()
        settings.CopyFrom(self.settings)
        totals, shadow_totals = replace(self.totals), replace(self.shadow_totals)
        return replace(self, settings=settings, totals=totals, shadow_totals=shadow_totals)

    def is_visible_to(self, viewer: str | None) -> bool:
        """Whether the caller `viewer` may see it; None: somebody who may see all sessions."""
        return may_see(self.owner, viewer)

    def to_row(self) -> audit_pb2.SessionRow:
        """The session's row in the ledger."""
        from recording.rows import session_row  # only if rows are recorded: it loads redaction

        return session_row(
            self.id,
            self.revision,
            common_pb2.SessionStatus.ValueType(self.status),
            engine=self.settings.engine,
            model=self.settings.model,
            labels=self.settings.labels,
            created_at_ms=self.created_at_ms,
            updated_at_ms=self.updated_at_ms,
            turns=self.turns,
            tool_calls=self.totals.tool_calls,
            usage=self.totals.to_usage(),
        )

    def to_message(self) -> pb.Session:
        """The session as the gateway's clients see it: without its system prompt."""
        session = pb.Session(
            id=self.id,
            settings=self.settings,
            status=common_pb2.SessionStatus.ValueType(self.status),
            turns=self.turns,
            tool_calls=self.totals.tool_calls,
            usage=self.totals.to_usage(),
            created_at_ms=self.created_at_ms,
            updated_at_ms=self.updated_at_ms,
            shadow_usage=self.shadow_totals.to_usage()
            if self.settings.shadows or self.shadow_totals.requests
            else None,
        )
        session.settings.ClearField("system_prompt")
        return session


class SessionPage(NamedTuple):
    """Some sessions of a listing."""

    states: list[SessionState]
    has_more: bool
    """Whether others come behind them."""


def settings_to_json(settings: pb.SessionSettings) -> dict[str, Any]:
    """The settings as they are kept: the message's JSON, with the names of the proto."""
    return MessageToDict(settings, preserving_proto_field_name=True)


def settings_from_json(state: dict[str, Any]) -> pb.SessionSettings:
    """Takes the settings out of a session's state as it was kept.

    Older states have them beside the rest: budgets of 0 for none, and choices as pairs.
    """
    if (kept := state.pop("settings", None)) is not None:
        budget = kept.pop("max_cost_micros", None)  # an int64, which is a text in a message's JSON
        return pb.SessionSettings(**kept, max_cost_micros=None if budget is None else int(budget))
    fallback = state.pop("fallback", None)
    return pb.SessionSettings(
        engine=state.pop("engine"),
        model=state.pop("model"),
        system_prompt=state.pop("system_prompt"),
        labels=state.pop("labels"),
        max_cost_micros=state.pop("max_cost_micros", 0) or None,
        fallback=_choice(*fallback) if fallback else None,
        shadows=[_choice(*pair) for pair in state.pop("shadows", ())],
    )


def _choice(engine: str, model: str) -> pb.EngineChoice:
    return pb.EngineChoice(engine=engine, model=model)
