import pytest

from tests.engines_claude.stage import Stage


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path)
