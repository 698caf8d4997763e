"""What these tests share."""

import pytest

from tests.support.shown import hand_over


@pytest.fixture(scope="session", autouse=True)
def shown_as_in_a_gateway() -> None:
    """Arguments show as their tools say."""
    hand_over()
