"""The AI SDK of Vercel (`ai` of npm): versions 4 to 6, and 7 with its LegacyOpenTelemetry.

Version 7 speaks by the conventions for generative AI otherwise. The span of each operation (`ai.streamText`) is around
those of its requests (`ai.streamText.doStream`) and has their sums. The table follows what 4.3.19, 5.0.277, 6.0.326 and
7.0.173 sent.
"""

from intake_svc.dialects.base.table import Dialect, Table
from intake_svc.dialects.conventions import FRAME, Convention

MARK = "ai.operationId"
"""What each of its spans has, in whichever scope: `ai`, or that of a tracer that it was given."""

DIALECT = Dialect(engine="aisdk", agent="ai-sdk")
SPANS = Table(
    kind=(MARK,),
    session=(
        "session.id",
        # what applications call it: they alone give it a name
        "ai.telemetry.metadata.sessionId",
        "ai.telemetry.metadata.session_id",
        "ai.telemetry.metadata.threadId",
        "ai.telemetry.metadata.chatId",
        "ai.settings.context.sessionId",  # of version 7
        "traceloop.association.properties.sessionId",  # Traceloop's SDK of JavaScript renames some
        "traceloop.association.properties.session_id",
    ),
    tool=("ai.toolCall.name",),
    call_id=("ai.toolCall.id",),
    arguments=("ai.toolCall.args", "traceloop.entity.input"),
    status=("ai.response.finishReason",),
    model=("ai.response.model", "gen_ai.response.model"),
    requested_model=("ai.model.id", "gen_ai.request.model"),
    provider=("ai.model.provider", "gen_ai.system"),
    input_tokens=("ai.usage.inputTokens", "ai.usage.promptTokens", "gen_ai.usage.input_tokens", "ai.usage.tokens"),
    output_tokens=("ai.usage.outputTokens", "ai.usage.completionTokens", "gen_ai.usage.output_tokens"),
    cached_tokens=("ai.usage.cachedInputTokens", "ai.usage.inputTokenDetails.cacheReadTokens"),
    cache_write_tokens=("ai.usage.inputTokenDetails.cacheWriteTokens",),
    reasoning_tokens=("ai.usage.reasoningTokens", "ai.usage.outputTokenDetails.reasoningTokens"),
)
_TEXTS = ("ai.generateText", "ai.streamText", "ai.generateObject", "ai.streamObject")
_EMBEDDINGS = ("ai.embed", "ai.embedMany")
_AROUND_OTHERS = ("ai.rerank", "ai.transcribe")
"""What is around requests that are no rows: those are told as not understood, and this is not told once more."""
CONVENTION = Convention(
    dialect=DIALECT,
    table=SPANS,
    operation=SPANS.kind,
    words={
        "ai.toolCall": "execute_tool",
        **dict.fromkeys(_TEXTS, "invoke_agent"),
        **{f"{each}.{does}": "chat" for each in _TEXTS for does in ("doGenerate", "doStream")},
        **dict.fromkeys((*_EMBEDDINGS, *_AROUND_OTHERS), FRAME),
        **{f"{each}.doEmbed": "embeddings" for each in _EMBEDDINGS},
    },
)
