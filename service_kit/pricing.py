"""Prices and context sizes of models, from the list bundled with genai-prices. Nothing is fetched."""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Protocol

import structlog
from genai_prices import Usage as PricedUsage
from genai_prices.data_snapshot import DataSnapshot, get_snapshot
from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

_MILLION = 1_000_000
_PARTS = 10**12
"""Of a millionth of a US dollar: nearly all prices on the list are whole numbers of them, which are the faster ones."""
_HALF = _PARTS // 2

log = structlog.get_logger(__name__)


class Usage(Protocol):
    """The tokens of one request, as recording.calls.Usage has them."""

    @property
    def input_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def cached_input_tokens(self) -> int: ...
    @property
    def cache_write_input_tokens(self) -> int: ...
    @property
    def complete(self) -> bool: ...


def cost_micros(
    base_url: str | None,
    provider: str | None,
    model: str,
    usage: Usage,
    *,
    local: bool = False,
    at_ms: int | None = None,
) -> int | None:
    """Millionths of a US dollar, or None if the price is unknown or the usage is incomplete.

    A local server's requests cost nothing. Otherwise the provider is the one whose API is at base_url. If the price
    list does not know the address, it is `provider`, by its id on the list, or if that is None the model's maker.
    The price is that of the time at_ms, in milliseconds since 1970-01-01 UTC, or of now.
    """
    if local:
        return 0
    if not usage.complete:
        return None
    try:
        found = _on_list(model, (_provider_at(base_url) if base_url else None) or provider)
        if found is None:
            return None
        maker, listed = found
        return _micros(maker, listed, at_ms, usage)
    except LookupError:
        return None
    except Exception:  # a missing price must not fail a turn
        log.warning("pricing.failed", model=model, exc_info=True)
        return None


@dataclass(frozen=True, slots=True)
class _Rates:
    """What a token costs in parts of a millionth of a US dollar, where that does not depend on how many there are."""

    listed: ModelPrice
    request: int | Decimal
    """Of a request, whatever it takes."""
    read: int | Decimal
    written: int | Decimal
    cached: int | Decimal
    """More than what is read, or less."""
    cache_written: int | Decimal
    """The same."""


def _micros(maker: Provider, model: ModelInfo, at_ms: int | None, usage: Usage) -> int:
    """By the rates where the list has them: its own way takes 140 us for a request."""
    read, written = usage.input_tokens, usage.output_tokens
    cached, cache_written = usage.cached_input_tokens, usage.cache_write_input_tokens
    if cached > read:
        cached = read
    price = model.prices  # of most models the same at all times
    if not isinstance(price, ModelPrice):
        price = model.get_prices(_moment(at_ms))
    known = _known_rates.get(id(price))
    if known is None:
        known = _rates(maker, model, price, _moment(at_ms))
    if known is None or written < 0 or cached < 0 or cache_written < 0 or cached + cache_written > read:
        dollars = _listed_price(maker, model, _moment(at_ms), read, written, cached, cache_written)
        return int((dollars * _MILLION).to_integral_value(ROUND_HALF_UP))
    parts = known.request + read * known.read + written * known.written
    if cached or cache_written:
        parts += cached * known.cached + cache_written * known.cache_written
    return int((parts + _HALF) // _PARTS)


def _moment(at_ms: int | None) -> datetime:
    return datetime.now(UTC) if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC)


def _rates(maker: Provider, model: ModelInfo, price: ModelPrice, at: datetime) -> _Rates | None:
    """The rates of a price, None where the price of a token depends on how many there are."""
    if any(isinstance(each, TieredPrices) for each in vars(price).values()):
        return None
    base = _listed_price(maker, model, at, 0, 0, 0, 0)
    of_input = _listed_price(maker, model, at, _MILLION, 0, 0, 0)
    # What a million tokens cost in dollars is what one costs in millionths of a dollar.
    dollars = (
        base * _MILLION,
        of_input - base,
        _listed_price(maker, model, at, 0, _MILLION, 0, 0) - base,
        _listed_price(maker, model, at, _MILLION, 0, _MILLION, 0) - of_input,
        _listed_price(maker, model, at, _MILLION, 0, 0, _MILLION) - of_input,
    )
    known = _known_rates[id(price)] = _Rates(price, *(_parts(each * _PARTS) for each in dollars))
    return known


def _parts(number: Decimal) -> int | Decimal:
    whole = int(number)
    return whole if whole == number else number


_known_rates: dict[int, _Rates] = {}
"""By the id of the listed price, which the rates keep: as many as there are on the list."""


def _listed_price(
    maker: Provider, model: ModelInfo, at: datetime, read: int, written: int, cached: int, cache_written: int
) -> Decimal:
    usage = PricedUsage(
        input_tokens=read,
        output_tokens=written,
        cache_read_tokens=cached,
        cache_write_tokens=cache_written or None,
    )
    price = model.calc_price(usage, maker, genai_request_timestamp=at, auto_update_timestamp=None)
    return price.total_price


@lru_cache(maxsize=1_024)
def _on_list(model: str, provider: str | None) -> tuple[Provider, ModelInfo] | None:
    """A model of the list, and who offers it. In a snapshot of its own: a shared one keeps all that is asked for."""
    snapshot = DataSnapshot(get_snapshot().providers, from_auto_update=False)
    try:
        return snapshot.find_provider_model(model, None, provider, None)
    except LookupError:
        return None


@lru_cache(maxsize=256)
def context_tokens(base_url: str, configured: int | None, model: str) -> int | None:
    """The size of a model's context, input and output: what is configured, else what the list has; None if unknown."""
    if configured is not None:
        return configured
    try:
        provider_id = _provider_at(base_url)
        return get_snapshot().find_provider_model(model, None, provider_id, None)[1].context_window
    except LookupError:
        return None


@lru_cache(maxsize=256)
def _provider_at(base_url: str) -> str | None:
    try:
        return get_snapshot().find_provider(None, None, base_url).id
    except LookupError:
        return None
