"""Prices and context sizes of models, from the list bundled with genai-prices. Nothing is fetched."""

from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Protocol

import structlog
from genai_prices import Usage as PricedUsage
from genai_prices.data_snapshot import DataSnapshot, get_snapshot
from genai_prices.types import ModelInfo, Provider

_MICROS = Decimal(1_000_000)

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
        price = listed.calc_price(
            PricedUsage(
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cache_read_tokens=min(usage.cached_input_tokens, usage.input_tokens),
                cache_write_tokens=usage.cache_write_input_tokens or None,
            ),
            maker,
            genai_request_timestamp=datetime.now(UTC) if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC),
            auto_update_timestamp=None,
        ).total_price
        return int((price * _MICROS).to_integral_value(ROUND_HALF_UP))
    except LookupError:
        return None
    except Exception:  # a missing price must not fail a turn
        log.warning("pricing.failed", model=model, exc_info=True)
        return None


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
