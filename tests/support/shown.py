"""What the gateway hands to the record when it is put together: how the arguments of each tool are shown."""

from gateway_svc.engines.claude.shown import SHOWN_OF_CLAUDE
from gateway_svc.tools import kinds
from recording import redact


def hand_over() -> None:
    """Shows the tools' arguments as in a gateway."""
    redact.show_fields(kinds.shown(), complete=True)
    redact.show_fields(SHOWN_OF_CLAUDE)
