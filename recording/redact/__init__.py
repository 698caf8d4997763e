"""Redaction: what goes on the record holds no content and no secret.

A whitelist of fields by tool, then the process's own secrets by their value, then patterns, then the cut: never the
other way round, so that no half of a secret is left. docs/decisions/redaction.md says what is covered and what is not.
"""

from recording.redact.exact import protect
from recording.redact.fit import clean
from recording.redact.summary import show_fields, summarize_args
from recording.redact.text import redact_call_id, redact_name, redact_text

__all__ = [
    "POLICY_VERSION",
    "clean",
    "protect",
    "redact_call_id",
    "redact_name",
    "redact_text",
    "show_fields",
    "summarize_args",
]

POLICY_VERSION = 2
"""Raised with every change of what is shown; each audit row carries it."""
