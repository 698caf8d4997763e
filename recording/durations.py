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
duration is 0, or how long somebody waited: neither is the tool's time."""


def known_duration_ms(outcome: common_pb2.Outcome.ValueType, duration_ms: int) -> int | None:
    """How long a call's tool ran, by its row; None where it did not run, or nobody knows."""
    unbegun = outcome == common_pb2.OUTCOME_CANCELLED and not duration_ms
    return None if unbegun or outcome in WITHOUT_DURATION else duration_ms
