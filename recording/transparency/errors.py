"""What can be wrong with what a log, or a witness, has said."""


class TransparencyError(Exception):
    """The message says what is wrong and what to do."""


class BadKey(TransparencyError):
    """A text is no key."""


class BadNote(TransparencyError):
    """A note is none, or nobody who is known has signed it."""
