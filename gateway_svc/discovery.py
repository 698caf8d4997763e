"""Finds what the modules of a package offer, so that a new engine or tool is one new file and no list names it."""

import importlib
import pkgutil
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


def discover(package: ModuleType, offer: type[T], name: str = "KIND") -> list[T]:
    """What each module directly in a package offers under `name`, in the order of the modules' names.

    A folder that is added to the package's `__path__` is a part of it. Modules without such an offer are passed over.
    """
    modules = (importlib.import_module(f"{package.__name__}.{found.name}") for found in _modules(package))
    offers = (getattr(module, name, None) for module in modules)
    return [found for found in offers if isinstance(found, offer)]


def _modules(package: ModuleType) -> list[pkgutil.ModuleInfo]:
    return sorted(pkgutil.iter_modules(package.__path__), key=lambda found: found.name)
