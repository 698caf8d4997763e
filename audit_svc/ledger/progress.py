"""How far long work is."""

from collections.abc import Callable

OnProgress = Callable[[int, int], None]
"""Called with how much is done and how much there is, 0 where that is not known. It may raise to end the work."""
