"""Which calls have a duration: alone, since commands that show rows load nothing that takes long."""

from onrecord.common.v1 import common_pb2

WITHOUT_DURATION = frozenset(
    {
        common_pb2.OUTCOME_DENIED,
        common_pb2.OUTCOME_INTERRUPTED,
        common_pb2.OUTCOME_INVALID_CALL,
        common_pb2.OUTCOME_DRY_RUN,
    }
)
"""How calls end of which nobody knows how long their tool ran, or whose tool did not run. What their rows have as a
duration is 0, or of other agents how long somebody waited: neither is the tool's time."""


OF_OTHERS = frozenset({common_pb2.SOURCE_OTLP, common_pb2.SOURCE_HOOK})
"""How rows come of other agents, which do not always tell how long something took: 0 is what they did not tell."""


def known_duration_ms(
    outcome: common_pb2.Outcome.ValueType,
    duration_ms: int,
    source: common_pb2.Source.ValueType = common_pb2.SOURCE_UNSPECIFIED,
) -> int | None:
    """How long a call's tool ran, by its row; None where it did not run, or nobody knows."""
    untold = not duration_ms and (outcome == common_pb2.OUTCOME_CANCELLED or source in OF_OTHERS)
    return None if untold or outcome in WITHOUT_DURATION else duration_ms
