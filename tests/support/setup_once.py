"""Makes at the setup, once, what each worker of the tests would make for itself in a new clone.

Hypothesis keeps a table of characters and the constants of each of our modules, which are compiled on the way.
"""

from contextlib import suppress
from importlib import import_module
from pkgutil import walk_packages

from hypothesis import given, settings, strategies

_PACKAGES = ("audit_svc", "demo", "gateway_svc", "intake_svc", "onrecord_cli", "recording", "service_kit")


@settings(max_examples=1000, deadline=None, database=None)
@given(strategies.text(), strategies.integers(), strategies.binary())
def _draw(text: str, number: int, data: bytes) -> None:
    """What is drawn needs the tables."""


def _main() -> None:
    for package in _PACKAGES:
        for module in walk_packages(import_module(package).__path__, f"{package}."):
            with suppress(ImportError):  # of an extra that is not installed
                if not module.name.endswith("__main__"):
                    import_module(module.name)
    _draw()


if __name__ == "__main__":
    _main()
