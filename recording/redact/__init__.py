"""Redaction keeps content and secrets off the record.

The steps, in this order: a whitelist of fields per tool, the process's own secrets by value, patterns, truncation.
Truncation comes last, since half a secret matches no pattern. docs/decisions/redaction.md says what is covered.
"""

from recording.redact.exact import protect
from recording.redact.fit import clean
from recording.redact.summary import keep_arguments, show_fields, summarize_args, summarize_unknown_args
from recording.redact.text import redact_call_id, redact_name, redact_text

__all__ = [
    "POLICY_VERSION",
    "clean",
    "keep_arguments",
    "protect",
    "redact_call_id",
    "redact_name",
    "redact_text",
    "show_fields",
    "summarize_args",
    "summarize_unknown_args",
]

POLICY_VERSION = 5
"""Incremented with every change of what is shown; each audit row carries it."""
