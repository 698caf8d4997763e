"""Modules that libraries import and commands never use: each is loaded when somebody asks for something in it."""

import importlib.util
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

UNUSED = frozenset({"asyncio", "google.protobuf.internal.python_message", "grpc.aio", "inspect"})
"""What gRPC, protobuf and dataclasses import: half of the time that a command that asks a service takes to start."""


class _Later:
    def __init__(self, names: Collection[str]) -> None:
        self._names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._names:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec


@contextmanager
def loaded_later(names: Collection[str] = UNUSED) -> Iterator[None]:
    """Imports of these modules in the body load them at their first use, by whatever thread: not for services, since
    two threads must not be the first at once (https://docs.python.org/3/library/importlib.html#importlib.util.LazyLoader).
    """
    finder = _Later(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
