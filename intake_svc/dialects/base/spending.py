"""What a request took: tokens counted alike for all producers, and a price."""

from intake_svc.dialects.base.event import Event
from intake_svc.dialects.base.table import Dialect, Table
from recording.calls import Usage
from service_kit.bounds import MAX_COUNT
from service_kit.pricing import cost_micros

_PROVIDERS = {
    "gcp.gen_ai": "google",
    "gcp.gemini": "google",
    "gcp.vertex_ai": "google",
    "gcp.vertex.agent": "google",
    "gemini": "google",
    "vertexai": "google",
    "aws.bedrock": "aws",
    "amazon-bedrock": "aws",
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "az.ai.openai": "azure",
    "x_ai": "x-ai",
    "mistral_ai": "mistral",
}
"""Names of the conventions for providers that the price list names otherwise."""


def usage_of(dialect: Dialect, table: Table, event: Event) -> Usage:
    """The tokens of a request, counted alike for all: input with what caches had, output with what was reasoning."""
    attributes = event.attributes
    given, written = attributes.number(table.input_tokens), attributes.number(table.output_tokens)
    cached = attributes.number(table.cached_tokens) or 0
    cache_write = attributes.number(table.cache_write_tokens) or 0
    reasoning = attributes.number(table.reasoning_tokens) or 0
    total = attributes.number(table.total_tokens)
    read, out = given or 0, written or 0
    if dialect.input_excludes_cache or read < cached + cache_write:
        read += cached + cache_write
    read += attributes.number(table.tool_tokens) or 0
    if total:
        if total >= read + out + reasoning:
            out += reasoning
    elif dialect.output_excludes_reasoning or out < reasoning:
        out += reasoning
    return Usage(read, out, cached, reasoning, cache_write, given is not None and written is not None)


def price_of(dialect: Dialect, table: Table, event: Event, usage: Usage, model: str) -> tuple[int | None, bool]:
    """The price in millionths of a US dollar as the agent says, else by the list; and whether the agent says it."""
    micros = event.attributes.number(table.cost_micros)
    dollars = event.attributes.amount(table.cost_usd)
    if micros is not None:
        return micros, True
    if dollars is not None and dollars * 1_000_000 <= MAX_COUNT:
        return round(dollars * 1_000_000), True
    told = event.attributes.word(table.provider)
    provider = _PROVIDERS.get(told) or told.partition(".")[0] or dialect.provider  # the AI SDK's are like openai.chat
    return cost_micros(None, provider, model, usage, at_ms=event.began_ms) if model else None, False
