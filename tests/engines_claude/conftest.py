import pytest

from tests.engines_claude.real import home, model
from tests.engines_claude.stage import Stage

__all__ = ["home", "model", "stage"]


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path)
