"""How many examples a property is tried with."""

import os


def examples(many: int) -> int:
    """A third of many where SHORT is set, as in `make test` and `.ci/run`; `make test-long` tries all."""
    return many // 3 if os.environ.get("SHORT") else many
