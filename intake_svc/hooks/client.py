"""`onrecord-hook AGENT`: hands the event of a hook to the door, and prints the answer in the agent's own form.

Each call of a tool waits for it twice, so it imports little, and nothing is read of the event while the door answers.
"""

import _socket  # the module socket takes longer to import than all of this
import os
import sys
import time

from intake_svc.hooks.git import repository_and_branch

USAGE = """usage: onrecord-hook AGENT [EVENT] [--rules FILE] [--mode best_effort|strict] [--door ADDRESS]

Puts a tool call of an agent on the record: reads one event of the agent's hooks on stdin, and hands it to intake-svc.

AGENT   claude, codex, gemini, copilot, cursor or opencode
EVENT   the event's name, where the agent does not say it on stdin
--rules FILE   rules on arguments (docs/rules.md) that answer deny or ask
--mode MODE    best_effort (default) never stands in the agent's way; strict refuses a tool whose call is not recorded
--door ADDRESS   where intake-svc listens for HTTP, HOST:PORT or unix:PATH; else INTAKE_HOOK_SOCKET, else
                 INTAKE_HTTP_LISTEN, else 127.0.0.1:4318

A file named in ONRECORD_TOKEN_FILE holds the token for a door that wants one.
"""
AGENTS = ("claude", "codex", "gemini", "copilot", "cursor", "opencode")
SECONDS = {"best_effort": 2.0, "strict": 10.0}
"""How long the door may take."""
EXIT_USAGE = 64
EXIT_REFUSED = 2
"""With which hooks of several agents refuse a tool."""


PLACE = ("Onrecord-Repository", "Onrecord-Branch")
"""Headers that say in which repository and branch the hook ran."""
EVENT_ID = "Onrecord-Event"
"""The header by which an event is known when it comes again: 16 hexadecimal digits."""


class NotTaken(Exception):
    """The door did not answer, or not that it has the event."""


class Options:
    """The command line.

    Raises:
        ValueError: it is wrong.
    """

    def __init__(self, words: list[str]) -> None:
        self.rules, self.mode = "", "best_effort"
        path = os.environ.get("INTAKE_HOOK_SOCKET")
        self.door = f"unix:{path}" if path else os.environ.get("INTAKE_HTTP_LISTEN") or "127.0.0.1:4318"
        plain = []
        words = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
        while words:
            word = words.pop(0)
            if word in ("--rules", "--mode", "--door"):
                setattr(self, word[2:], words.pop(0) if words else "")
            else:
                plain.append(word)
        self.agent, self.event = [*plain, "", ""][:2]
        if self.agent not in AGENTS or self.mode not in SECONDS or len(plain) > 2 or plain[-1].startswith("-"):
            raise ValueError
        if not self.event.replace(".", "").isalnum() and self.event:
            raise ValueError


def main() -> None:
    """The console script."""
    try:
        options = Options(sys.argv[1:])
    except ValueError:
        sys.stderr.write(USAGE)
        sys.exit(0 if "--help" in sys.argv else EXIT_REFUSED if _may_mean_strict(sys.argv[1:]) else EXIT_USAGE)
    try:
        _run(options)
    except Exception as error:  # noqa: BLE001 - whatever fails, best_effort does not stand in the agent's way
        sys.stderr.write(f"onrecord-hook: the event is not on the record: {type(error).__name__}\n")
        if options.mode == "strict":
            os._exit(EXIT_REFUSED)
    os._exit(0)  # an interpreter's end takes milliseconds


def _may_mean_strict(words: list[str]) -> bool:
    """Whether a command line that is wrong may have been meant to refuse what is not recorded."""
    said = " ".join(words)
    return ("--mode" in said or "strict" in said) and "best_effort" not in said


def _run(options: Options) -> None:
    at_ms, event_id = time.time_ns() // 1_000_000, os.urandom(8).hex()
    event = _stdin()
    answer = b""
    place = repository_and_branch(os.getcwd())
    try:
        answer = _answered(options, event, place, event_id)
    except (OSError, NotTaken) as error:
        from intake_svc.hooks.kept import fall_back

        answer = fall_back(options, event, str(error), place, at_ms, event_id)
    if answer:
        os.write(1, answer)


def _answered(options: Options, event: bytes, place: tuple[str, str], event_id: str) -> bytes:
    query = f"?event={options.event}" if options.event else ""
    rules = b""
    if options.rules:
        try:
            with open(options.rules, "rb") as file:
                rules = file.read()
        except OSError:
            raise NotTaken("the file of rules cannot be read") from None
    headers = "".join(f"{name}: {text}\r\n" for name, text in zip(PLACE, place, strict=True) if text)
    headers += f"{EVENT_ID}: {event_id}\r\nOnrecord-Mode: {options.mode}\r\n"
    if rules:
        headers += f"Onrecord-Rules-Bytes: {len(rules)}\r\n"
    answer = post(options, f"/hooks/{options.agent}{query}", rules + event, headers)
    if _has_kept():
        from intake_svc.hooks.kept import hand_over

        hand_over(options)
    return answer


def post(options: Options, path: str, body: bytes, headers: str = "") -> bytes:
    """Sends a body to the door, with more headers, a line each, and returns the body of its answer.

    Raises:
        OSError: the door cannot be reached.
        NotTaken: it did not take it.
    """
    host, _, port = options.door.rpartition(":")
    is_unix = options.door.startswith("unix:")
    name = "localhost" if is_unix else options.door
    head = f"POST {path} HTTP/1.1\r\nHost: {name}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    head += f"Content-Length: {len(body)}\r\n{headers}"
    if token := os.environ.get("ONRECORD_TOKEN_FILE"):
        with open(token, encoding="ascii") as file:
            head += f"Authorization: Bearer {file.read().strip()}\r\n"
    timeout = SECONDS[options.mode]
    family = _socket.AF_UNIX if is_unix else _socket.AF_INET6 if ":" in host else _socket.AF_INET
    connection = _socket.socket(family)
    try:
        connection.settimeout(timeout)
        connection.connect(options.door.removeprefix("unix:") if is_unix else (host.strip("[]"), int(port)))
        connection.sendall(f"{head}\r\n".encode("ascii") + body)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    finally:
        connection.close()
    start, _, rest = answer.partition(b"\r\n\r\n")
    status = start[9:12]
    if status == b"204":
        return b""
    if status != b"200":
        raise NotTaken(f"the door answers {status.decode('ascii', 'replace') or 'nothing'}")
    return rest


def folder() -> str:
    """Where events are kept that no door took."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.environ.get("ONRECORD_HOOK_DIR") or f"{state}/onrecord/hooks"


def _has_kept() -> bool:
    try:
        return any(not name.endswith(".lock") for name in os.listdir(folder()))
    except OSError:
        return False


def _stdin() -> bytes:
    parts = []
    while part := os.read(0, 1 << 20):
        parts.append(part)
    return b"".join(parts)
