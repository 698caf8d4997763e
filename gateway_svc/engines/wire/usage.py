"""Token counts of a model request, which servers report in several places, under several names, sometimes wrong."""

from gateway_svc.engines.wire.fields import Fields, maybe_count
from recording.calls import Usage

_INPUT = ("prompt_tokens", "input_tokens")
_OUTPUT = ("completion_tokens", "output_tokens")
_READ_DETAILS = ("prompt_tokens_details", "input_tokens_details")
_WRITTEN_DETAILS = ("completion_tokens_details", "output_tokens_details")
_CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens")
"""OpenAI (in the details) and Moonshot (beside them); DeepSeek; LiteLLM."""
_CACHE_WRITE = ("cache_write_tokens", "cache_creation_input_tokens", "cache_creation_tokens")
"""OpenAI (in the details); LiteLLM (beside them, and in them)."""


class TokenCounts:
    """Collects the usage that a server reports, and keeps the highest of each count, since the last may be zeros."""

    def __init__(self) -> None:
        self._highest: dict[str, int] = {}

    def take(self, usage: object) -> None:
        """Takes a usage in the form of OpenAI's APIs. Unreadable fields are ignored."""
        if not isinstance(usage, dict):
            return
        read, written = _details(usage, _READ_DETAILS), _details(usage, _WRITTEN_DETAILS)
        self.put("input", _first(usage, _INPUT))
        self.put("output", _first(usage, _OUTPUT))
        self.put("total", maybe_count(usage.get("total_tokens")))
        self.put("cached", _first({**usage, **read}, _CACHED))
        self.put("cache_write", _first({**usage, **read}, _CACHE_WRITE))
        self.put("reasoning", _first({**usage, **written}, ("reasoning_tokens",)))

    def put(self, name: str, value: int | None) -> None:
        """Takes one count: of `input`, `output`, `total`, `cached`, `cache_write` or `reasoning` tokens."""
        if value is not None:
            self._highest[name] = max(value, self._highest.get(name, 0))

    def usage(self, *, answered: bool) -> Usage:
        """What was used. It is complete if tokens were read and, if `answered`, tokens were written.

        Reasoning belongs to the output, but xAI counts it beside the output, and Gemini only in the total. So the
        output is the greater of the reported count and what the total implies. Cached tokens belong to the input, but
        proxies in front of Anthropic's models count them beside it: then they exceed the input, or the total includes
        them once more.
        """
        told = self._highest
        read, written, reasoning = told.get("input", 0), told.get("output", 0), told.get("reasoning", 0)
        cached = told.get("cached", 0) + told.get("cache_write", 0)
        if read and cached and (cached > read or told.get("total", 0) - read - written == cached):
            read += cached
        if reasoning > written:
            written += reasoning
        written = max(written, told.get("total", 0) - read if read else 0)
        return Usage(
            input_tokens=read,
            output_tokens=written,
            cached_input_tokens=min(told.get("cached", 0), read),
            reasoning_tokens=min(reasoning, written),
            cache_write_input_tokens=min(told.get("cache_write", 0), read),
            complete=read > 0 and (written > 0 or not answered),
        )


def _details(usage: Fields, names: tuple[str, ...]) -> Fields:
    found = (usage.get(name) for name in names)
    return {key: value for details in found if isinstance(details, dict) for key, value in details.items()}


def _first(usage: Fields, names: tuple[str, ...]) -> int | None:
    """The highest of the counts under these names; None if there is none."""
    counts = [value for value in (maybe_count(usage.get(name)) for name in names) if value is not None]
    return max(counts, default=None)
