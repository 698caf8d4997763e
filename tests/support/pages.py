"""A listing's pages, asked for one after another until the last, whose token is empty."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from service_kit.paging import DEFAULT_PAGE_SIZE


def pages(ask: Callable[[Any], Any], request: Any) -> Iterator[Any]:
    """All pages from the request's own token on. None has more than was asked for."""
    while True:
        yield (page := ask(request))
        if not _goes_on(request, page):
            return


async def pages_of(method: Any, request: Any, **options: Any) -> AsyncIterator[Any]:
    """The same of an RPC."""
    while True:
        yield (page := await method(request, **options))
        if not _goes_on(request, page):
            return


def parts_of(page: Any) -> int:
    """How many of what it lists are in a page."""
    return sum(len(value) for field, value in page.ListFields() if field.is_repeated)


def _goes_on(request: Any, page: Any) -> bool:
    assert parts_of(page) <= (request.page_size or DEFAULT_PAGE_SIZE)
    assert not page.next_page_token or page.next_page_token != request.page_token
    request.page_token = page.next_page_token
    return bool(page.next_page_token)
