"""How a program says that it could not do what was asked: a sentence on stderr, or an object where results are JSON."""

import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from service_kit.printable import json_text, printable
from service_kit.terminal.command import Exit
from service_kit.terminal.printing import Printer, stderr_is_json

_JSON = ("--json", "--format=json", "--format=jsonl")


class Failed(Exit):
    """The program ends with an exit code and a sentence on stderr."""

    def __init__(
        self, sentence: str, code: int = 1, cause: BaseException | None = None, fields: Mapping[str, str] | None = None
    ) -> None:
        """sentence: of several lines where one does not do; may have names of others in it.

        cause: an error that tells more to programs: a status of gRPC, or one that has a reason (service_kit.errors).
        fields: more for programs.
        """
        super().__init__(code)
        self.sentence, self.cause, self.fields = sentence, cause, dict(fields or {})


def asks_for_json(words: Sequence[str]) -> bool:
    """Whether a command line asks for results as JSON, and so for errors too."""
    options = [*words[: words.index("--")]] if "--" in words else words
    joined = (f"{name}={value}" for name, value in pairwise(options))
    return any(word in _JSON for word in [*options, *joined])


own_names: dict[str, str] = {}
"""What a program calls commands that sentences name as those of other programs: it has the same under its own name."""


def as_typed(sentence: str) -> str:
    """A sentence whose commands are those of the program that runs, where it has them."""
    for other, own in own_names.items():
        sentence = sentence.replace(other, own)
    return sentence


def tell(failed: Failed) -> None:
    """Says why the program ends: for people a sentence, for programs one line, `{"error": {…}}`.

    Its fields: message, exit_code; from a service, or of the ledger's errors, code (the status of gRPC), reason and
    metadata as in google.rpc.ErrorInfo; option, where what was typed is wrong.
    """
    sentence = as_typed(failed.sentence)
    if not stderr_is_json():
        Printer(stderr=True).print("\n".join(map(printable, sentence.split("\n"))), style="red")
        return
    error = {"message": sentence, "exit_code": failed.code, **about_cause(failed.cause), **failed.fields}
    sys.stderr.write(json_text({"error": error}, ascii_only=True) + "\n")
    sys.stderr.flush()


def about_cause(cause: BaseException | None) -> dict[str, Any]:
    """What a failure's cause tells to programs: see tell()."""
    if cause is None:
        return {}
    import grpc  # programs alone need it, and only where something failed

    from recording.channel.details import info_of
    from service_kit.errors import about

    if not isinstance(cause, grpc.RpcError):
        return about(cause)
    answer: Any = cause
    info = info_of(cause)
    about_info = {"reason": info.reason, "metadata": dict(info.metadata)} if info.reason else {}
    return {"code": answer.code().name, **about_info}
