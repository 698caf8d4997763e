"""The group `dead-letters` of a program that records. A command's module is loaded when it runs."""

from service_kit.terminal.program import Command, Group

_MODULE = "service_kit.producing.dead_letters"


def dead_letters(settings: str, variable: str) -> Group:
    """The group of a program whose state directory is named by variable, and read by settings, module:class."""
    fixed = {"settings": settings, "variable": variable}
    return Group(
        "Rows that the ledger refused: list, show, resend or drop them.",
        {
            "list": Command(f"{_MODULE}:list_letters", "List the rows that the ledger refused.", fixed),
            "show": Command(f"{_MODULE}:show", "Show refused rows as they were recorded.", fixed),
            "resend": Command(f"{_MODULE}:resend", "Send refused rows again.", fixed),
            "drop": Command(f"{_MODULE}:drop", "Remove refused rows for good.", fixed),
        },
    )
