"""Finds passwords by their signs: a word of mixed case with digits and a sign that names and paths do not have."""

import re

from recording.redact.spans import Span, marker

_SHORTEST = 8
_LONGEST = 128
_SIGN = re.compile(r"[!#@^%$&]")
# A word with one of these signs. Each is read once: it begins where no other word's character stands before it.
_SIGNED = re.compile(
    r"(?<![^\s\"'`=,:;|<>()\[\]{}\\])[^\s\"'`=,:;|<>()\[\]{}\\!#@^%$&]*+[!#@^%$&][^\s\"'`=,:;|<>()\[\]{}\\]*+"
)
_REST = re.compile(r"[^\s\"'`]*+")
_LOWER, _UPPER, _DIGIT = re.compile(r"[a-z]"), re.compile(r"[A-Z]"), re.compile(r"[0-9]")
# Signs that say something else: a variable, a date format or an encoded byte, `!=`, a comment or a color, an anchor.
_MEANS_ELSE = re.compile(r"\$[\w{(@#?*!-]*|%[A-Za-z%]|%[0-9A-F]{2}|^[!#@^%&]+|\$$|\^[0-9A-Z]?$|&$|&&")
# As in a list of characters to choose from.
_RANGE = re.compile(r"A-Z|a-z|0-9")
# A substitution, a mail address or host, a version, a test of a class.
_OTHER = re.compile(
    r"[sy]([#@!%^]).*\1.*\1.*"
    r"|[\w.+-]+@(?:[\w-]+\.)+[\w-]+"
    r"|(?:[A-Za-z][A-Za-z._-]{2,}|[a-z]{2,})[0-9]*@[A-Za-z][\w-]*"
    r"|.*\.\..*"
    r"|[\w.-]+@(?:v?[0-9]+(?:\.[0-9]+)*|sha[0-9]+|latest)(?<!@123)"
    r"|[\w.$]*(?:Test|Tests|IT|Spec|Case)#\w+"
    r"|[A-Z]\w+#[a-z]{3}\w{9,}",
    re.DOTALL,
)
_KINDS = (_LOWER, _UPPER, _DIGIT, re.compile(r"[^\w./:+~,-]"))
_VERSION = re.compile(r"v?[0-9]+(?:[.:-]?[0-9]+)*[a-z]{0,2}|[0-9.]+[kmgtKMGT]i?[bB]?")
_FIRST_PARTS = re.compile(r"[A-Za-z]+[._-][\w.-]+")


def find(text: str) -> list[Span]:
    """Words of at least eight characters that mix cases, digits and signs as only passwords do."""
    if not _SIGN.search(text):
        return []
    return [
        Span(match.start(), _end(text, match), marker("password-shape"))
        for match in _SIGNED.finditer(text)
        if _SHORTEST <= match.end() - match.start() <= _LONGEST and _is_password(text, match)
    ]


def _is_password(text: str, match: re.Match[str]) -> bool:
    word = match.group()
    if not (_UPPER.search(word) and _LOWER.search(word) and _DIGIT.search(word)):
        return False
    quoted = text[match.start() - 1 : match.start()] == "'" and text[match.end() : match.end() + 1] == "'"
    if not quoted:
        if text[match.end() : match.end() + 1] == "=" and word[-1] in "!^%&":
            return False  # a comparison or a query
        signs = _MEANS_ELSE.sub("", word)
    else:
        signs = word.strip("^$%#")
    if not quoted and ("=" in text[max(0, match.start() - 1) : match.end() + 1] or "?" in word):
        signs = signs.replace("&", "")  # fields of a query
    if not _SIGN.search(signs) or "/" in word or _RANGE.search(word):
        return False
    return _OTHER.fullmatch(word) is None


def _end(text: str, match: re.Match[str]) -> int:
    """A password may go on after a sign that separates words elsewhere."""
    if text[match.start() - 1 : match.start()] in ("", " ", "'", '"', "="):
        rest = _REST.match(text, match.end())
        return min(rest.end() if rest else match.end(), match.start() + _LONGEST)
    return match.end()


def is_mixed(word: str) -> bool:
    """Whether a word that stands where passwords stand looks like one, rather than like a name, path or version."""
    word = word.strip("\"'")
    if (
        len(word) < 6
        or word.startswith(("/", "./", "~", "$", "-", "[", "<", "{", "(", "%", "@", "#"))
        or _VERSION.fullmatch(word)
    ):
        return False
    lower, upper, digit, sign = (kind.search(word) is not None for kind in _KINDS)
    if sign:
        return (lower or upper) and "/" not in word and "*" not in word
    if not (digit and (lower or upper)) or "/" in word:
        return False
    if lower and upper:
        return True
    return not _FIRST_PARTS.fullmatch(word)


_STRANGE = re.compile(r"[!#$%^&*?@+~`]")
_HEX = re.compile(r"[\w-]*?[0-9a-f]{6,}[\w.-]*")
_LEET = re.compile(r"(?<=[A-Za-z])[013457]{1,2}(?=[A-Za-z])")
_KNOWN = re.compile(
    r"(?i:k8s|i18n|l10n|a11y|s3|ec2|e2e|b2b|p2p|log4j|utf-?8|utf16|oauth2|x86|h264|mp4|v[0-9]+|[a-z]*64|sha[0-9]+|md5|w3c)"
)
# All three kinds of characters: names with a number are mostly of one case. Or a seed in base32.
_MIXED_CASE = re.compile(
    r"(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9])(?!.*\.[a-z]{1,4}\Z|[A-Z][a-z]+[0-9]+\Z(?<=Test[0-9])|v[0-9]|.*__|Q[0-9]_|[a-z]{2}_[A-Z]{2}\.|[a-z]{2,6}_[A-Za-z0-9]{12,})[A-Za-z][\w.-]{7,}"
    r"|(?=.*[0-9])(?=.*[A-Z])[A-Z2-7]{16,}=*"
)
_PRODUCT_KEY = re.compile(
    r"(?:\w+=)?(?=[A-Z-]*[0-9])(?=[0-9-]*[A-Z])(?:[A-Z0-9]{4}(?:-[A-Z0-9]{4}){3,}|[A-Z0-9]{5,6}(?:-[A-Z0-9]{5,6}){2,})"
)
_ORDINARY = re.compile(
    r"[\w.+-]+@(?:[\w-]+\.)*[\w+-]+|@[\w-]+/.*|[A-Z_]+=.*|[\w.-]+=.*|\+.*|[0-9].*|HEAD.*|\w+[~^][0-9]*|.*://.*|[\w.-]+[><=!~^]{1,2}[0-9].*"
    r"|[\w.-]+:[\w.-]+|[\w-]+\[.*|[?&].*|[\w.-]+@[\w.+-]+%.*|.*\*.*|#[0-9a-fA-F]{3,8}|_Z.*",
    re.DOTALL,
)


def is_odd(word: str) -> bool:
    """Whether a word mixes letters, digits and signs as names, files, versions and addresses do not."""
    if not 6 <= len(word) <= 64 or "/" in word or " " in word or not _DIGIT.search(word) or word[0] in "-.~$[{(<%":
        return False
    if not (lower := _LOWER.search(word)) and not _UPPER.search(word):
        return False
    if _PRODUCT_KEY.fullmatch(word):
        return True
    if _STRANGE.search(word):
        return not _ORDINARY.fullmatch(word) or word[0] == "@"
    if not lower:
        return _MIXED_CASE.fullmatch(word) is not None
    if len(word) >= 20 or _ORDINARY.fullmatch(word):
        return False
    if _MIXED_CASE.fullmatch(word):
        return True
    plain = _KNOWN.sub("", word)
    return len(_LEET.findall(plain)) >= (1 if _UPPER.search(plain) else 2) and not _is_hex(plain)


def _is_hex(word: str) -> bool:
    return _HEX.fullmatch(word) is not None
