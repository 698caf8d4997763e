"""What a model request costs."""

from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal

import pytest
from genai_prices import Usage as PricedUsage
from genai_prices import calc_price
from hypothesis import given, settings
from hypothesis import strategies as st

from recording.calls import Usage
from service_kit.pricing import cost_micros

OPENAI = "https://api.openai.com/v1"
COUNTS = st.integers(min_value=0, max_value=2**53)


def test_a_local_model_costs_nothing_whatever_its_name():
    usage = Usage(1000, 1000)
    assert cost_micros("http://localhost:11434", None, "gpt-4o", usage, local=True) == 0
    assert cost_micros("http://localhost:8080/v1", None, "gpt-4o", usage, local=True) == 0


def test_a_price_is_that_of_the_provider_at_the_address():
    usage = Usage(1_000_000, 1_000_000)
    # dollars for a million tokens, as the provider's price page has them
    assert cost_micros(OPENAI, None, "gpt-4o-mini", usage, local=False) == 150_000 + 600_000
    groq = cost_micros("https://api.groq.com/openai/v1", None, "llama-3.3-70b-versatile", usage, local=False)
    assert groq == 590_000 + 790_000


def test_cached_tokens_have_their_own_price():
    assert cost_micros(OPENAI, None, "gpt-4o-mini", Usage(1_000_000, 0, 1_000_000), local=False) == 75_000
    assert cost_micros(OPENAI, None, "gpt-4o-mini", Usage(1_000_000, 0, 5_000_000), local=False) == 75_000


def test_a_dated_model_and_an_unknown_address_find_their_price_by_name():
    usage = Usage(1_000_000, 0)
    assert cost_micros(OPENAI, None, "gpt-4o-mini-2024-07-18", usage, local=False) == 150_000
    assert cost_micros("http://litellm:4000/v1", None, "gpt-4o-mini", usage, local=False) == 150_000
    assert cost_micros(None, None, "gpt-4o-mini", usage, local=False) == 150_000


@pytest.mark.parametrize(
    ("url", "model"), [(OPENAI, "no-such-model"), ("http://x/v1", "no-such-model"), (OPENAI, ""), (None, "")]
)
def test_what_is_not_known_is_none(url, model):
    assert cost_micros(url, None, model, Usage(1, 1), local=False) is None


def test_an_incomplete_count_has_no_price():
    assert cost_micros(OPENAI, None, "gpt-4o-mini", Usage(10, 0, complete=False), local=False) is None


def test_halves_are_rounded_up():
    # 0.15 dollars for a million: 10 tokens are 1.5 micros, 3 tokens are 0.45
    assert cost_micros(OPENAI, None, "gpt-4o-mini", Usage(10, 0), local=False) == 2
    assert cost_micros(OPENAI, None, "gpt-4o-mini", Usage(3, 0), local=False) == 0


@given(COUNTS, COUNTS, COUNTS)
def test_any_count_has_a_whole_price_next_to_the_exact_one(read, written, cached):
    micros = cost_micros(OPENAI, None, "gpt-4o-mini", Usage(read, written, cached), local=False)
    usage = PricedUsage(input_tokens=read, output_tokens=written, cache_read_tokens=min(cached, read))
    exact = calc_price(usage, "gpt-4o-mini", provider_id="openai").total_price * 1_000_000
    assert micros is not None
    assert abs(micros - exact) <= Decimal("0.5")


def test_every_kind_of_price_on_the_list_comes_out_as_the_list_has_it():
    at = 1_790_000_000_000
    offers = [
        ("openai", "gpt-4o-mini"),
        ("anthropic", "claude-sonnet-4-5"),  # dearer from a number of tokens on
        ("google", "gemini-2.5-pro"),
        ("deepseek", "deepseek-chat"),  # cheaper at night
        ("x-ai", "grok-4-0709"),
        ("mistral", "mistral-large-latest"),
        ("openrouter", "google/gemini-2.5-flash"),  # a price of many decimals
    ]
    for provider, model in offers:
        for usage in (
            Usage(250_000, 7_001),
            Usage(9_999, 1, 1_234),
            Usage(300_001, 12, 5, 0, 77),
        ):
            counts = PricedUsage(
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cache_read_tokens=usage.cached_input_tokens,
                cache_write_tokens=usage.cache_write_input_tokens or None,
            )
            time = datetime.fromtimestamp(at / 1000, UTC)
            exact = calc_price(counts, model, provider_id=provider, genai_request_timestamp=time).total_price
            rounded = int((exact * 1_000_000).to_integral_value(ROUND_HALF_UP))
            assert cost_micros(None, provider, model, usage, at_ms=at) == rounded, (provider, model, usage)


@pytest.mark.long
@settings(max_examples=30)
@given(st.text(), st.none() | st.text(), st.integers())
def test_it_never_raises(model, url, tokens):
    cost_micros(url, None, model, Usage(tokens, tokens, tokens), local=False)
