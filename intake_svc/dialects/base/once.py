"""Tells which of several accounts of one model request counts."""

from collections.abc import Hashable, Mapping
from typing import Generic, NamedTuple, TypeVar

_Key = TypeVar("_Key", bound=Hashable)


class Account(NamedTuple, Generic[_Key]):
    """A span of a request, as it is judged."""

    around: _Key | None
    """The key of the span around it, whether or not that is a request."""
    has_tokens: bool


def repeated(requests: Mapping[_Key, Account[_Key]]) -> set[_Key]:
    """The requests, by their keys, that another span tells of too, above or below them.

    Where a framework and its model's client are both instrumented, each has a span of one request, one right below the
    other. The uppermost one with tokens counts, of each branch; where none has any, the uppermost one of all.
    """
    tops: dict[_Key | None, _Key] = {}
    told: set[_Key | None] = set()  # those with tokens, and all below them
    counting: set[_Key] = set()
    tops_of_counting: set[_Key] = set()
    for key in requests:
        way: list[_Key] = []
        at: _Key | None = key
        while at is not None and at in requests and at not in tops:
            tops[at] = at  # for now: spans that are each other's parents end here too
            way.append(at)
            at = requests[at].around
        for each in reversed(way):
            top = tops[each] = tops.get(at, way[-1])
            if requests[each].around in told:
                told.add(each)
            elif requests[each].has_tokens:
                told.add(each)
                counting.add(each)
                tops_of_counting.add(top)
    return requests.keys() - counting - (set(tops.values()) - tops_of_counting)
