"""SQL that both stores share, in PostgreSQL's spelling: it is written as SQLite takes it.

What is rewritten is only what the shared statements say: `?` and `?1` for values, hints for indexes, lists of numbers
from JSON, and the functions that have other names. Statements are made from texts of ours alone.
"""

import re
from functools import lru_cache

_REWRITES = (
    (re.compile(r"\b(NOT INDEXED|INDEXED BY \w+)"), ""),
    (
        re.compile(r"SELECT value FROM json_each\((\?\d*)\)"),
        r"SELECT value::bigint FROM json_array_elements_text(\1::json)",
    ),
    (re.compile(r"\binstr\("), "strpos("),
    # of globs, those that legal holds may have: * and ?, without brackets
    (re.compile(r"(\w+) GLOB (\?\d*)"), r"\1 ~ glob_regex(\2)"),
)
_PLACE = re.compile(r"\?(\d*)")


@lru_cache(1024)
def spelled(sql: str) -> str:
    """The statement as PostgreSQL takes it. A value without a number has the one above the highest before it."""
    for pattern, replacement in _REWRITES:
        sql = pattern.sub(replacement, sql)
    count = 0

    def place(found: re.Match[str]) -> str:
        nonlocal count
        number = int(found[1] or count + 1)
        count = max(count, number)
        return f"${number}"

    return _PLACE.sub(place, sql)
