"""Tokens and cost as Claude's program reports them: by request in its stream, by model in its results."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway_svc.engines.claude.lines import as_object, as_word
from gateway_svc.engines.wire.fields import Fields, clean, count
from recording.calls import Usage

MAX_USD = 10**9


INPUT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
OUTPUT = "output_tokens"


@dataclass(slots=True)
class Counts:
    """The tokens of one request. Its lines repeat and raise its counts, so the highest of each counts."""

    _highest: dict[str, int] = field(default_factory=dict)
    _unread: set[str] = field(default_factory=set)
    """Counts that came in unreadable form, and in no later line."""

    def add(self, usage: object, *, last: bool = False) -> None:
        """Takes the usage of a line; `last` marks the one with the final output count."""
        told = as_object(usage)
        for name in (*INPUT, OUTPUT):
            value = told.get(name)
            if (value is None and not (last and name == OUTPUT)) or count(value) or value == 0:
                self._raise(name, count(value), read=value is not None)
            else:
                self._unread.add(name)
        self._raise("thinking_tokens", count(as_object(told.get("output_tokens_details")).get("thinking_tokens")))

    def _raise(self, name: str, value: int, *, read: bool = True) -> None:
        self._highest[name] = max(value, self._highest.get(name, 0))
        if read:
            self._unread.discard(name)

    def usage(self, *, complete: bool) -> Usage:
        """The request's tokens. No input means that its counts did not come."""
        of = self._highest.get
        cached = of("cache_read_input_tokens", 0)
        given = of("input_tokens", 0) + of("cache_creation_input_tokens", 0) + cached
        return Usage(
            input_tokens=given,
            output_tokens=of(OUTPUT, 0),
            cached_input_tokens=cached,
            reasoning_tokens=of("thinking_tokens", 0),
            complete=complete and given > 0 and not self._unread,
        )


@dataclass(frozen=True, slots=True)
class Spent:
    """What a model used, according to a result."""

    usage: Usage
    cost_micros: int | None
    """None if the program has no price for the model and guesses."""
    canonical_model: str = ""
    """The model's plain name, if the other is a provider's name or has a suffix."""

    def names(self, model: str) -> set[str]:
        """The names that the stream may have for this model."""
        return {model, model.partition("[")[0], self.canonical_model}

    def since(self, before: "Spent | None") -> "Spent":
        """The difference from an earlier result, if both are running totals."""
        if before is None:
            return self
        cost = None if self.cost_micros is None else self.cost_micros - (before.cost_micros or 0)
        return Spent(difference(self.usage, [before.usage]) or Usage(), cost, self.canonical_model)


def spent_by_model(value: object) -> dict[str, Spent]:
    """Reads the field `modelUsage` of a result."""
    return {clean(model): _spent(entry) for model, entry in as_object(value).items() if isinstance(entry, dict)}


def total_spent(result: Fields, model: str) -> dict[str, Spent]:
    """Reads a result without modelUsage, which has only the total cost."""
    return {model: Spent(Usage(), _micros(result.get("total_cost_usd")))}


def added(one: Usage, other: Usage) -> Usage:
    """Both together, complete if the first is."""
    return Usage(
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cached_input_tokens=one.cached_input_tokens + other.cached_input_tokens,
        reasoning_tokens=one.reasoning_tokens + other.reasoning_tokens,
        complete=one.complete,
    )


def difference(usage: Usage, seen: Sequence[Usage]) -> Usage | None:
    """The part of usage that is in none of `seen`, or None if there is none."""
    rest = Usage(
        input_tokens=max(0, usage.input_tokens - sum(other.input_tokens for other in seen)),
        output_tokens=max(0, usage.output_tokens - sum(other.output_tokens for other in seen)),
        cached_input_tokens=max(0, usage.cached_input_tokens - sum(other.cached_input_tokens for other in seen)),
        reasoning_tokens=max(0, usage.reasoning_tokens - sum(other.reasoning_tokens for other in seen)),
    )
    return rest if rest.input_tokens or rest.output_tokens else None


def _spent(entry: Fields) -> Spent:
    cached = count(entry.get("cacheReadInputTokens"))
    return Spent(
        Usage(
            input_tokens=count(entry.get("inputTokens")) + count(entry.get("cacheCreationInputTokens")) + cached,
            output_tokens=count(entry.get("outputTokens")),
            cached_input_tokens=cached,
            reasoning_tokens=count(entry.get("thinkingTokens")),
        ),
        None if entry.get("costBasis") == "unknown" else _micros(entry.get("costUSD")),
        as_word(entry.get("canonicalModel")),
    )


def _micros(usd: object) -> int | None:
    return (
        round(usd * 1_000_000)
        if isinstance(usd, int | float) and type(usd) is not bool and 0 <= usd <= MAX_USD
        else None
    )
