r"""What a regular expression may cost. RE2 takes time in proportion to the text and to the size of the compiled
pattern, and counted repetition makes a short pattern large: `(\pL{30}){30}` has 900 classes.
"""

import re

MAX_PATTERN_COST = 1000
"""Of all patterns of a condition together. 64 KiB against the worst pattern of this cost takes a third of a second."""
_CLASS_COST = 10
"""A class is several ranges of UTF-8 bytes, a letter is one byte or few."""
_PART = re.compile(
    r"(?P<escape>\\[pP](?:\{\^?\w*\}|\^?\w)|\\[dDsSwW])"
    r"|(?P<letter>\\.)"
    r"|(?P<class>\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]|\.)"
    r"|(?P<open>\()|(?P<close>\))"
    r"|\{(?P<least>\d+)(?:,(?P<most>\d*))?\}"
    r"|(?P<other>.)",
    re.DOTALL,
)


def pattern_cost(pattern: str) -> int:
    r"""An upper bound on the size of a pattern once its repetitions are written out: 1 a letter, 10 a class.

    Syntax: https://github.com/google/re2/wiki/Syntax. What is no pattern at all has a cost too; RE2 refuses it.

    Raises:
        ValueError: it quotes with \Q, within which brackets and braces are letters.
    """
    if "\\Q" in pattern:
        raise ValueError("\\Q is not taken: escape what is to be taken literally one by one")
    sums, last = [0], 0
    for part in _PART.finditer(pattern):
        times = part["most"] or part["least"]
        if times:
            repeated = last * int(times)
            sums[-1] += repeated - last
            last = repeated
        elif part["open"]:
            sums.append(0)
            last = 0
        elif part["close"] and len(sums) > 1:
            last = sums.pop()
            sums[-1] += last
        else:
            last = _CLASS_COST if part["escape"] or part["class"] else 1
            sums[-1] += last
    return sum(sums)
