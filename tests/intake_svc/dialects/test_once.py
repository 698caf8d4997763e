"""Of several accounts of one model request, each in a span below another, one counts."""

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

from intake_svc.dialects import read_spans
from tests.intake_svc.dialects.exports import put
from tests.intake_svc.exports import BEGAN_NS

GENAI = (
    {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "gpt-5",
        "gen_ai.conversation.id": "s-1",
    },
    ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"),
)
OPENINFERENCE = (
    {"openinference.span.kind": "LLM", "llm.model_name": "gpt-5", "session.id": "s-1"},
    (
        "llm.token_count.prompt",
        "llm.token_count.completion",
    ),
)


def input_tokens(dialect, around: dict[str, str], tokens: dict[str, int]) -> list[int]:
    """Of the rows. around: of each span's name, that of the one around it."""
    attributes, counts = dialect
    spans = ResourceSpans()
    for name, parent in around.items():
        span = spans.scope_spans.add().spans.add(trace_id=b"t" * 16, span_id=name.encode() * 8)
        span.parent_span_id = parent.encode() * 8
        span.start_time_unix_nano, span.end_time_unix_nano = BEGAN_NS, BEGAN_NS + 5_000_000
        put(span.attributes, **attributes, **(dict.fromkeys(counts, tokens[name]) if name in tokens else {}))
    return [row.input_tokens for row in read_spans(spans).costs]


THREE_DEEP = {"A": "", "B": "A", "C": "B"}


@pytest.mark.parametrize("dialect", [GENAI, OPENINFERENCE], ids=["genai", "openinference"])
@pytest.mark.parametrize("backwards", [False, True], ids=["in order", "children first"])
@pytest.mark.parametrize(
    ("around", "tokens", "counted"),
    [
        (THREE_DEEP, {"A": 10, "C": 10}, [10]),
        (THREE_DEEP, {"C": 10}, [10]),
        (THREE_DEEP, {"A": 11, "B": 12, "C": 13}, [11]),
        (THREE_DEEP, {"B": 12, "C": 13}, [12]),
        (THREE_DEEP, {}, [0]),
        ({**THREE_DEEP, "D": "C", "E": "D"}, {"C": 10, "E": 10}, [10]),
        ({"A": "", "B": "A", "C": "A"}, {"B": 12, "C": 13}, [12, 13]),  # a client asked twice
        ({"A": "", "B": "A", "C": "A"}, {"B": 12}, [12]),  # the first try failed
        ({"A": "", "B": "", "C": ""}, {"B": 12}, [0, 0, 12]),
        ({"A": "C", "B": "A", "C": "B"}, {"B": 12}, [12]),  # no span is around itself, whatever is sent
        ({"A": "B", "B": "A"}, {}, [0]),
    ],
)
def test_of_requests_one_below_another_the_uppermost_with_tokens_counts(dialect, around, tokens, counted, backwards):
    if backwards:
        around = dict(reversed(around.items()))
    assert sorted(input_tokens(dialect, around, tokens)) == counted


@pytest.mark.long
@pytest.mark.parametrize("dialect", [GENAI, OPENINFERENCE], ids=["genai", "openinference"])
def test_requests_nested_as_deep_as_an_export_has_spans_are_one(dialect):
    names = [chr(number) for number in range(0x4E00, 0x4E00 + 3000)]
    assert input_tokens(dialect, dict(zip(names, ["", *names], strict=False)), {names[-1]: 7}) == [7]
