"""The extras of this distribution, for whoever lacks one."""


def installing(extra: str) -> str:
    """The command that installs an extra. It is one of a checkout, since no index of packages has onrecord."""
    return f".venv/bin/pip install -c constraints.txt -e '.[{extra}]'"


def is_missing(extra: str) -> str:
    """A sentence without its stop: the extra is not installed, and what installs it."""
    return f"the extra `{extra}` is not installed; in a checkout, {installing(extra)}"
