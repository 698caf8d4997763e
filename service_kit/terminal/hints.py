"""What somebody may have meant by a word that is not known: a hint is right, or it is left out."""

from collections.abc import Iterable, Mapping

_LONG = 6
"""Letters from which on a word may have two typos, and not only one."""
_BEGINNING = 3
"""Letters from which on a word's beginning stands for it."""
_SYNONYMS = (
    {"all", "everything"},
    {"since", "from", "after", "begin", "start", "last"},
    {"until", "to", "before", "end"},
    {"limit", "count", "number", "last", "head", "tail"},
    {"output", "out", "outfile", "output-file"},
    {"target", "address", "server", "host", "url"},
    {"wide", "full"},
    {"by", "group-by", "groupby", "group"},
    {"principal", "user", "caller", "person", "username"},
)
"""Options that programs have for the same. A hint names those that a command takes."""
_COMMANDS = {"ls": "sessions", "list": "sessions", "start": "up", "serve": "up", "status": "health"}
"""Commands that other programs have, and which of ours does it."""


def stands_for(typed: str) -> str:
    """The command of ours that a word is another name of; the word itself if it is none."""
    return _COMMANDS.get(typed, typed)


def meant(typed: str, known: Iterable[str]) -> str:
    """The end of a sentence on an unknown word: which known one may be meant; empty if none is near."""
    near = nearest(typed, known)
    return f": is {' or '.join(near)} meant?" if near else ""


def nearest(typed: str, known: Iterable[str]) -> list[str]:
    """The words that typed is another word for, or else the one that it is a typo or the beginning of; empty if there
    is none, or several are as near.
    """
    words = {word: word.strip("-").lower() for word in known}
    wanted = typed.strip("-").lower()
    if not typed.startswith("-"):
        own = _COMMANDS.get(wanted, "")
        return [own] if own in words else _alone(_typos(wanted, words))
    others = _others(words)
    if same := [word for word, names in others.items() if wanted in names]:
        return same
    begun = {word for word, bare in words.items() if len(wanted) >= _BEGINNING and bare.startswith(wanted)}
    # Of another word only a letter too few or too many: one changed makes words of their own.
    of_others = {
        word
        for word, names in others.items()
        if any(len(name) != len(wanted) and _typos(wanted, {name: name}) for name in names)
    }
    return _alone(_typos(wanted, words)) or _alone(begun) or _alone(of_others)


def _others(words: Mapping[str, str]) -> dict[str, set[str]]:
    """Of each word the others for the same."""
    groups = {word: [group for group in _SYNONYMS if bare in group] for word, bare in words.items()}
    return {word: set().union(*found) - set(words.values()) for word, found in groups.items() if found}


def _alone(found: Iterable[str]) -> list[str]:
    """The one that was found; empty where there are several, which differ in more than their dashes."""
    words = sorted(found)
    return words[:1] if len({word.strip("-") for word in words}) == 1 else []


def _typos(wanted: str, words: Mapping[str, str]) -> set[str]:
    """The nearest of words that wanted is a typo of."""
    at_most = 2 if len(wanted) >= _LONG else 1
    distances = {word: _distance(wanted, bare) for word, bare in words.items() if len(bare) > at_most}
    least = min(distances.values(), default=at_most + 1)
    return {word for word, distance in distances.items() if distance == least} if least <= at_most else set()


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
