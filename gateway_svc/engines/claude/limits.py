"""The account's limits, as a `rate_limit_event` line reports them."""

import re

from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.engines.wire.fields import Fields, text

STATUSES = {
    "allowed": pb.RATE_LIMIT_STATUS_ALLOWED,
    "allowed_warning": pb.RATE_LIMIT_STATUS_NEAR,
    "rejected": pb.RATE_LIMIT_STATUS_REACHED,
}
MAX_SECONDS = 2**40
_WORD = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def rate_limit(info: Fields) -> pb.RateLimitChanged:
    """The event for the field `rate_limit_info` of such a line.

    It has `resetsAt` in seconds since 1970 and `utilization` between 0 and 1; either may be missing.

    Raises:
        ValueError: a field has the wrong type.
    """
    window = text(info.get("rateLimitType"))
    changed = pb.RateLimitChanged(
        status=STATUSES.get(text(info.get("status")), pb.RATE_LIMIT_STATUS_UNSPECIFIED),
        window=window if _WORD.fullmatch(window) else "",
    )
    resets_at, utilization = info.get("resetsAt"), info.get("utilization")
    if isinstance(resets_at, int | float) and 0 < resets_at < MAX_SECONDS:
        changed.resets_at_ms = round(resets_at * 1000)
    if isinstance(utilization, int | float) and utilization >= 0:
        changed.utilization = min(1.0, utilization)
    return changed
