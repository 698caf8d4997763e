"""A module is found by what it offers, also in a folder that is added to its package."""

import importlib
import sys

import pytest

from gateway_svc.discovery import discover


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two folders."""
    first, second = tmp_path / "first" / "plugged", tmp_path / "second"
    first.mkdir(parents=True)
    second.mkdir()
    (first / "__init__.py").write_text("")
    (first / "b.py").write_text("KIND = 'of b'")
    (first / "plain.py").write_text("")
    (first / "other.py").write_text("KIND = 7")
    (second / "a.py").write_text("KIND = 'of a'")
    monkeypatch.syspath_prepend(str(tmp_path / "first"))
    plugged = importlib.import_module("plugged")

    plugged.__path__.append(str(second))
    yield plugged
    for name in [name for name in sys.modules if name.partition(".")[0] == "plugged"]:
        del sys.modules[name]


def test_what_modules_offer_is_found_in_the_order_of_their_names(package):
    assert discover(package, str) == ["of a", "of b"]
