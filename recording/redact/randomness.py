"""Tells random tokens from names, to find keys that have no known prefix and follow no word such as `key`."""

import re

from recording.redact.spans import Span, marker

_SHORTEST = 20
"""Of what is found below."""
_TOKEN = re.compile(r"[A-Za-z0-9+/_-]{20,}={0,2}")
_PRODUCT_KEY = re.compile(r"[A-Z0-9]{5}(?:-[A-Z0-9]{5}){3,}|[A-Z0-9]{6}(?:-[A-Z0-9]{6}){3,}")
_SEGMENT = re.compile(r"[A-Za-z0-9+_-]{20,}={0,2}")
_PIECE = re.compile(r"[A-Za-z0-9]+")
# A digest is public, also one of go.sum, and so is the mangled name of a function.
_DIGEST = re.compile(
    r"sha[0-9]{1,3}-|_Z(?=[NKSTL0-9])|(?:price|evt|prod|cus|sub|pi|ch|acct|txn|req|plan|pm|si|po|tr|we)_(?=[A-Za-z0-9]{14,30}\Z)",
    re.IGNORECASE,
)
_DIGEST_BEFORE = re.compile(
    r"(?:sha[0-9]{1,3}|md5|blake[23][bs]?)[-:=@\"' ]{1,3}\Z|\bh1:\Z|\bW/[\"']\Z|\bpeer \Z|\bpublic[-_ ]?key\W{1,3}\Z",
    re.IGNORECASE,
)
# What builds write: a file named by the digest of what is in it.
_BUILT_AFTER = re.compile(r"\.(?:cache|chunk|css|js|map|woff2?|png|jpe?g|svg|webp|o|pyc|pack|idx)\b")
_KIND_OF = str.maketrans(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", "a" * 26 + "A" * 26 + "0" * 10
)
_RUN = re.compile(r"a+|A+|0+|[^aA0]+")
_HEX = re.compile(r"[0-9a-f]{16,}|[0-9A-F]{16,}")

# Among random letters and digits, six neighbours in ten differ in kind and one character in six is a digit: a score of
# 0.9. Names made of words and numbers mostly stay under 0.5, since words lower the score.
_SCORE_ALONE = 0.5
_SCORE_AFTER_WORD = 0.4
_MOST_DIGITS = 0.45
# Compound names have short parts.
_LONGEST_PIECE = 14
_WORD = re.compile(r"a{5,}")
# Random base64 has one slash per 64 characters; a path has one per name.
_CHARACTERS_A_SLASH = 16


def _score(token: str) -> float:
    kinds = token.translate(_KIND_OF)
    words = sum(map(len, _WORD.findall(kinds)))
    return (len(_RUN.findall(kinds)) - 1 + 2 * kinds.count("0") - words) / len(kinds)


def _random_alone(token: str) -> bool:
    kinds = max(_PIECE.findall(token), key=len, default="").translate(_KIND_OF)
    if len(kinds) < _LONGEST_PIECE or not ("a" in kinds and "A" in kinds and "0" in kinds):
        return False
    return kinds.count("0") <= _MOST_DIGITS * len(kinds) and _score(token.rstrip("=")) >= _SCORE_ALONE


def random_after_word(token: str) -> bool:
    """Whether a token that follows a word such as `key` looks random rather than like a name."""
    token = token.strip("\"'=")
    return not token.isdecimal() and (_HEX.fullmatch(token) is not None or _score(token) >= _SCORE_AFTER_WORD)


def _is_public(text: str, part: re.Match[str]) -> bool:
    """Whether what is around a random token says that it is a digest."""
    if text[part.start() - 1 : part.start()] == "/" and _BUILT_AFTER.match(text, part.end()):
        return True
    return _DIGEST_BEFORE.search(text, max(0, part.start() - 12), part.start()) is not None


def find(text: str) -> list[Span]:
    """Tokens of at least 20 characters, in mixed case with digits, that look random regardless of context."""
    spans: list[Span] = []
    if len(text) < _SHORTEST:
        return spans
    for match in _TOKEN.finditer(text):
        token = match.group()
        if _PRODUCT_KEY.fullmatch(token):
            spans.append(Span(*match.span(), marker("product-key")))
            continue
        if token.islower() or token.isupper() or _DIGEST.match(token):
            continue
        whole = token.count("/") <= len(token) // _CHARACTERS_A_SLASH and _random_alone(token)
        parts = [match] if whole else _SEGMENT.finditer(text, match.start(), match.end())
        spans.extend(
            Span(part.start(), part.end(), marker("random"))
            for part in parts
            if _random_alone(part.group()) and not _is_public(text, part)
        )
    return spans


LONGEST_NAME = 40
"""In characters."""
_NAME = re.compile(rf"[A-Za-z_][\w.\[\]-]{{0,{LONGEST_NAME - 1}}}", re.ASCII)


def is_name(text: str) -> bool:
    """Whether text can be shown as the name of an argument or a query field; a model may write anything there."""
    return _NAME.fullmatch(text) is not None and not (len(text) >= 16 and random_after_word(text))
