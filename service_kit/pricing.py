"""Prices and context sizes of models, from the list bundled with genai-prices. Nothing is fetched."""

from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Protocol

import structlog
from genai_prices import Usage as PricedUsage
from genai_prices import calc_price
from genai_prices.data_snapshot import get_snapshot

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
    base_url: str | None, provider: str | None, model: str, usage: Usage, *, local: bool = False
) -> int | None:
    """Millionths of a US dollar, or None if the price is unknown or the usage is incomplete.

    A local server's requests cost nothing. Otherwise the provider is the one whose API is at base_url. If the price
    list does not know the address, it is `provider`, by its id on the list, or if that is None the model's maker.
    """
    if local:
        return 0
    if not usage.complete:
        return None
    try:
        price = calc_price(
            PricedUsage(
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cache_read_tokens=min(usage.cached_input_tokens, usage.input_tokens),
                cache_write_tokens=usage.cache_write_input_tokens or None,
            ),
            model,
            provider_id=(_provider_at(base_url) if base_url else None) or provider,
        ).total_price
        return int((price * _MICROS).to_integral_value(ROUND_HALF_UP))
    except LookupError:
        return None
    except Exception:  # a missing price must not fail a turn
        log.warning("pricing.failed", model=model, exc_info=True)
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
