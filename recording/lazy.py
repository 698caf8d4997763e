"""Attributes that are computed when they are first asked for, without a lock.

functools.cached_property holds one in Python 3.11 while it computes. A fork meanwhile, by another thread, leaves it
held in the child for ever (https://github.com/python/cpython/issues/87634; 3.12 has none).
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class lazy(Generic[T]):  # noqa: N801 - used as a decorator
    """Has a method called once for each object, and its value be the attribute. Threads at once may each call it."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, owner: None, kind: type) -> "lazy[T]": ...
    @overload
    def __get__(self, owner: object, kind: type) -> T: ...
    def __get__(self, owner: object | None, kind: type) -> "lazy[T] | T":
        if owner is None:
            return self
        value = owner.__dict__[self._name] = self._compute(owner)
        return value
