"""What somebody may have meant by a word that is not known: a hint is right, or it is left out."""

from collections.abc import Iterable

_LONG = 6
"""Letters from which on a word may have two typos, and not only one."""
_SYNONYMS = (
    {"all", "everything"},
    {"since", "from", "after", "begin"},
    {"until", "to", "before", "end"},
    {"limit", "count", "number"},
    {"output", "out", "outfile", "output-file"},
    {"target", "address", "server", "host", "url"},
    {"wide", "full"},
)
"""Options that programs have for the same. A hint names one that a command takes."""


def meant(typed: str, known: Iterable[str]) -> str:
    """The end of a sentence on an unknown word: which known one may be meant; empty if none is near."""
    near = nearest(typed, known)
    return f": is {near} meant?" if near else ""


def nearest(typed: str, known: Iterable[str]) -> str:
    """The word that typed is a typo of, or another word for; empty if there is none, or several are as near."""
    words = {word: word.strip("-").lower() for word in known}
    wanted = typed.strip("-").lower()
    others = next((group for group in _SYNONYMS if wanted in group and typed.startswith("--")), set[str]())
    same = [word for word, bare in words.items() if bare in others]
    if len(same) == 1:
        return same[0]
    at_most = 2 if len(wanted) >= _LONG else 1
    distances = {word: _distance(wanted, bare) for word, bare in words.items() if len(bare) > at_most}
    least = min(distances.values(), default=at_most + 1)
    nearby = [word for word, distance in distances.items() if distance == least]
    return nearby[0] if least <= at_most and len({words[word] for word in nearby}) == 1 else ""


def _distance(one: str, other: str) -> int:
    """How many letters are left out, added, changed, or exchanged with the next."""
    before, row = list[int](), list(range(len(other) + 1))
    for i, letter in enumerate(one):
        last, before, row = before, row, [i + 1]
        for j, target in enumerate(other):
            row.append(min(before[j + 1] + 1, row[j] + 1, before[j] + (letter != target)))
            if i and j and letter == other[j - 1] and one[i - 1] == target:
                row[-1] = min(row[-1], last[j - 1] + 1)
    return row[-1]
