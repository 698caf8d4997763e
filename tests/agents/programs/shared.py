"""What the programs share: each is run by the Python of its framework, and asks the scripted model what to do.

The first argument is what the person says; MODEL_URL is the model, and OTEL_EXPORTER_OTLP_ENDPOINT the door.
"""

import os
import sys

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

PROMPT = sys.argv[1]
RESULT = sys.argv[2]
MODEL_URL = os.environ["MODEL_URL"]


class NotThere(Exception):
    """What the tool that fails raises."""


def provider() -> TracerProvider:
    """OpenTelemetry's SDK with its default settings."""
    made = TracerProvider()
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(made)
    return made


def lookup(topic: str) -> str:
    """Looks a topic up."""
    return f"{RESULT} {topic}"


def broken(topic: str) -> str:
    """Fails for every topic."""
    raise NotThere(f"{RESULT} {topic}")


def forbidden(topic: str) -> str:
    """Is refused before it runs."""
    raise AssertionError(f"a tool that was refused ran with {topic}")
