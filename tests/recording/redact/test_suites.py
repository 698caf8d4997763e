"""How much is found, and how often something ordinary is taken for a secret."""

import pytest

from tests.recording.redact import report, samples


@pytest.fixture(scope="module")
def found():
    return report.findings()


def test_the_suites_are_as_large_as_they_are_said_to_be():
    in_context = [secret for sample in samples.secrets(0) for secret in sample.secrets]
    assert len(in_context) >= 300
    ordinary = [sample.text for sample in samples.ordinary()]
    assert len(set(ordinary)) == len(ordinary) >= 300


def test_of_the_secrets_in_context_99_in_100_are_found(found):
    assert found.recall >= 0.99, found.missed


def test_of_ordinary_calls_1_in_100_is_taken_for_a_secret_at_most(found):
    assert found.false_alarms <= 0.01, found.alarms


def test_an_ordinary_call_is_shown_as_it_was_but_for_what_is_content_or_a_url_s_values():
    """A redactor that shows nothing would find everything: most ordinary calls are shown in full."""
    calls = [sample for sample in samples.ordinary() if sample.tool not in ("error", "webfetch")]
    in_full = [sample for sample in calls if report.shown(sample) == sample.text]
    assert len(in_full) >= 0.95 * len(calls)
