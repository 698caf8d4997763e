"""What may be shown of names and ids that others chose: none that may be a sentence.

Imports the standard library alone, since `onrecord-hook` does.
"""

import re

from intake_svc.hooks.git import without_user

# Anything else may be somebody's words: ids become digests, names are not shown.
_ID = re.compile(r"[A-Za-z0-9_.:/@+~=|#-]{1,256}", re.ASCII)
_REPOSITORY = re.compile(r"[A-Za-z0-9_.:/@+~=%-]{1,256}", re.ASCII)
_PERSON = re.compile(r"[\w.+-]@[\w.-]+\.[A-Za-z]{2,}|://.*@", re.ASCII)
"""An e-mail address, or the user of a URL, with a password maybe."""
_TOOL = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/@-]{0,127}", re.ASCII)


def identifier(text: str) -> str:
    """An id as it is; one that may be a sentence, or names a person, as a digest of it."""
    if not text or is_id(text):
        return text
    from hashlib import sha256  # which takes milliseconds, and is seldom wanted

    return "~" + sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def is_id(text: str) -> bool:
    """Whether a text is an id, and no sentence, e-mail address or URL with a user."""
    return _ID.fullmatch(text) is not None and not _names_a_person(text)


def is_name(text: str) -> bool:
    """Whether a text is the name of a tool, a server or an agent."""
    return _TOOL.fullmatch(text) is not None and not _names_a_person(text)


def _names_a_person(text: str) -> bool:
    return "@" in text and _PERSON.search(text) is not None


def repository_name(text: str) -> str:
    """A repository's URL or name, without user, password and query; empty where it may be something else."""
    shown = without_user(text)
    return shown if _REPOSITORY.fullmatch(shown) else ""


def branch_name(text: str) -> str:
    """The name of a branch; empty where it may be something else."""
    return text if is_id(text) else ""
