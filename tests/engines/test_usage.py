"""Counts of tokens, as servers tell them: a right bill, or none."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_svc.engines.wire.usage import TokenCounts

PLAIN = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
NONE = (0, 0, 0, 0, False)
"""Input, output, of these from a cache and thoughts, and whether the usage is complete."""
USAGES: dict[str, tuple[Any, tuple[int, int, int, int, bool]]] = {
    "OpenAI's": (PLAIN, (1000, 100, 0, 0, True)),
    "floats": ({"prompt_tokens": 10.0, "completion_tokens": 5.0}, (10, 5, 0, 0, True)),
    "text": ({"prompt_tokens": "10", "completion_tokens": "5"}, (10, 5, 0, 0, True)),
    "parts of a token": ({"prompt_tokens": 10.5, "completion_tokens": 5}, (0, 5, 0, 0, False)),
    "less than nothing": ({"prompt_tokens": -1, "completion_tokens": 5}, (0, 5, 0, 0, False)),
    "no input": ({"prompt_tokens": None, "completion_tokens": 5}, (0, 5, 0, 0, False)),
    "no output": ({"prompt_tokens": 10, "completion_tokens": None}, (10, 0, 0, 0, False)),
    "an output of nothing": ({"prompt_tokens": 10, "completion_tokens": 0}, (10, 0, 0, 0, False)),
    "truth": ({"prompt_tokens": True, "completion_tokens": True}, NONE),
    "a list": ([1, 2], NONE),
    "empty text": ({"prompt_tokens": "", "completion_tokens": ""}, NONE),
    "a total alone": ({"total_tokens": 100}, NONE),
    "more than there are": ({"prompt_tokens": 10**30, "completion_tokens": 5}, (0, 5, 0, 0, False)),
    "the names of Responses": ({"input_tokens": 10, "output_tokens": 5}, (10, 5, 0, 0, True)),
    "xAI's thoughts beside the output": (
        {**PLAIN, "total_tokens": 3100, "completion_tokens_details": {"reasoning_tokens": 2000}},
        (1000, 2100, 0, 2000, True),
    ),
    "thoughts beside the output, and no total": (
        {**PLAIN, "completion_tokens_details": {"reasoning_tokens": 2000}},
        (1000, 2100, 0, 2000, True),
    ),
    "Gemini's thoughts in the total alone": ({**PLAIN, "total_tokens": 1600}, (1000, 600, 0, 0, True)),
    "a total that is less": ({**PLAIN, "total_tokens": 1}, (1000, 100, 0, 0, True)),
    "DeepSeek's cache": ({**PLAIN, "prompt_cache_hit_tokens": 900}, (1000, 100, 900, 0, True)),
    "Moonshot's cache": ({**PLAIN, "cached_tokens": 900}, (1000, 100, 900, 0, True)),
    "a cache of null": ({**PLAIN, "prompt_tokens_details": {"cached_tokens": None}}, (1000, 100, 0, 0, True)),
    "details of null": ({**PLAIN, "prompt_tokens_details": None}, (1000, 100, 0, 0, True)),
    "LiteLLM's cache within the input": (
        {**PLAIN, "cache_read_input_tokens": 500, "cache_creation_input_tokens": 200},
        (1000, 100, 500, 0, True),
    ),
    "Bedrock's cache beside the input": (
        {"prompt_tokens": 4, "completion_tokens": 832, "total_tokens": 2326, "cache_read_input_tokens": 1490},
        (1494, 832, 1490, 0, True),
    ),
    "a smaller cache beside the input": (
        {**PLAIN, "total_tokens": 1600, "cache_read_input_tokens": 500},
        (1500, 100, 500, 0, True),
    ),
}


def counted(*told: Any) -> tuple[int, int, int, int, bool]:
    counts = TokenCounts()
    for usage in told:
        counts.take(usage)
    usage = counts.usage(answered=True)
    tokens = (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.reasoning_tokens)
    return (*tokens, usage.complete)


@pytest.mark.parametrize("name", USAGES)
def test_a_usage_is_counted_as_it_is_meant(name: str):
    usage, right = USAGES[name]
    assert counted(usage) == right
    assert counted(usage, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, {}, None) == right


def test_what_was_put_into_a_cache_is_counted_as_such():
    counts = TokenCounts()
    counts.take({**PLAIN, "prompt_tokens_details": {"cached_tokens": 300, "cache_write_tokens": 400}})
    usage = counts.usage(answered=True)
    assert (usage.input_tokens, usage.cached_input_tokens, usage.cache_write_input_tokens) == (1000, 300, 400)


COUNTS = st.one_of(st.none(), st.integers(-5, 10**20), st.floats(), st.text(max_size=3), st.booleans(), st.just({}))
NAMES = [*PLAIN, "input_tokens", "output_tokens", "cached_tokens", "cache_read_input_tokens", "reasoning_tokens"]


@given(st.dictionaries(st.sampled_from(NAMES), COUNTS))
def test_a_usage_of_any_shape_is_a_bill_only_with_input_and_output(usage: dict[str, Any]):
    read, written, cached, reasoning, complete = counted(usage)
    assert complete is (read > 0 and written > 0)
    assert 0 <= cached <= read
    assert 0 <= reasoning <= written
