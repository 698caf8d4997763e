"""What these tests share."""

import pytest

from recording.redact import exact


@pytest.fixture(autouse=True)
def _nothing_protected(monkeypatch):
    """Each test begins without secrets of the process, and leaves none."""
    monkeypatch.setattr(exact, "_forms", ())
