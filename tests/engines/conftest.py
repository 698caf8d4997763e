"""Hypothesis measures no time here: the machine may be busy with other tests."""

from hypothesis import settings

settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")
