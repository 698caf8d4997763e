"""How a tool call ended, in the same words and colours wherever it is shown."""

from service_kit.terminal.printing import Text

_FINE = {"succeeded", "dry_run", "", "unspecified"}


def outcome_text(outcome: str, exit_code: int | None, http_status: int | None) -> Text:
    """The outcome, with the code or status that it ended with red where anything went wrong.

    A command that exited 2 is "exit 2" and not "succeeded": it was run, which is all that its outcome says.

    outcome: the end of the enum's name in lower case, such as timed_out.
    """
    codes = [f"exit {exit_code}"] if exit_code else []
    codes += [f"HTTP {http_status}"] if http_status is not None else []
    is_bad = bool(exit_code) or (http_status or 0) >= 400
    if outcome not in _FINE:
        return Text(" ".join([outcome, *codes]), style="red")
    if is_bad:
        return Text(" ".join(codes), style="red")
    return Text(" ".join([outcome if outcome not in ("", "unspecified") else "ended", *codes]), style="green")
