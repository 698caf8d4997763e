"""Removes content from commands: here-documents, data that they write or send, long literals."""

import re

from recording.redact import patterns
from recording.redact.shell import Scanner, Token
from recording.redact.spans import Span, replace

# About a line: most commands and messages are shorter, most content is longer.
MAX_LITERAL = 80
_MAX_WORD = 256
_DEEPEST = 3
_TELLS, _TOLD = 100, 400
"""Characters of what is dropped that may tell a secret behind it, and of that."""
_MOST_LOOKED_BEHIND = 32

# Cheap tests for commands that may carry content; most match none.
_SUSPECT_WORDS = ("<<", "\n", "echo", "printf", "sh -")
_SUSPECT_FLAG = re.compile(r"[ \t]-(?:[dF]|-(?:data|json|form|post-data|body-))")
_SUSPECT_LENGTH = re.compile(r"\S{256}")
_OPENING = re.compile(r"['\"#]")
_URL = re.compile(r"[\"']?(?:https?|ftp|ssh|git|s3|gs)://[^\s\"']*[\"']?")
_ASSIGNED = re.compile(r"-{0,2}[\w.-]+=")
_SCRIPT_FLAG = re.compile(r"-[a-z]*c")
_DATA_FLAG = re.compile(
    r"(?:-[dF]|--(?:data(?:-raw|-ascii|-binary|-urlencode)?|json|form(?:-string)?|post-data|body-data)(?P<assigned>=?))"
    r"(?P<value>.*)",
    re.DOTALL,
)
_KEYWORDS = frozenset(("!", "{", "do", "elif", "else", "if", "then", "time", "until", "while"))
_PREFIXES = frozenset(("builtin", "command", "doas", "env", "exec", "nice", "nohup", "sudo", "xargs"))
_SHELLS = frozenset(("bash", "dash", "ksh", "sh", "zsh"))
_PRINTERS = frozenset(("echo", "printf"))
_FILE_WRITERS = frozenset(("dd", "sponge", "tee"))
_SENDERS = frozenset(("curl", "wget"))
_REDIRECTS = frozenset((">", ">>", ">|", "&>", "&>>"))
_SCREEN = ("/dev/null", "/dev/std", "/dev/tty", "/dev/fd")


def without_content(command: str, depth: int = 0) -> str:
    """A command with its content replaced by sizes; depth counts the shells around it."""
    if not _may_have_long_literal(command) and not _is_suspect(command):
        return command
    spans = _Content(command, depth).spans()
    return replace(command, spans + _told_inside(command, spans)) if spans else command


def _told_inside(command: str, dropped: list[Span]) -> list[Span]:
    """The secrets behind what is dropped that only words in there tell, as where a quote is closed late."""
    found = []
    for _, end, _ in dropped[:_MOST_LOOKED_BEHIND]:
        first = max(0, end - _TELLS)
        for start, stop, mark in patterns.find(command[first : end + _TOLD]):
            if first + stop > end:
                found.append(Span(max(first + start, end), first + stop, mark))
    return found


def _is_suspect(command: str) -> bool:
    for word in _SUSPECT_WORDS:
        if word in command:
            return True
    return _SUSPECT_FLAG.search(command) is not None or _SUSPECT_LENGTH.search(command) is not None


def _may_have_long_literal(command: str) -> bool:
    """Whether more than MAX_LITERAL follows the first quote or comment, which may never be closed."""
    first = _OPENING.search(command)
    return first is not None and len(command) - first.start() > MAX_LITERAL


class _Content:
    """One pass over a command's tokens."""

    def __init__(self, command: str, depth: int) -> None:
        self._command = command
        self._depth = depth
        self._spans: list[Span] = []
        self._printed: list[tuple[int, int]] = []  # what each echo prints, in parts if something lies between
        self._last_writer = -1  # position of the last word that writes a file
        self._program = ""
        self._outside: list[tuple[str, bool]] = []  # _program and _feeds outside each open parenthesis
        self._feeds = False  # whether output goes to the program outside, as in <(echo …)
        self._before = ""  # the previous word or operator

    def spans(self) -> list[Span]:
        for token in Scanner(self._command).tokens():
            text = self._command[token.start : token.end]
            match token.kind:
                case "word":
                    self._word(token, text)
                case "operator":
                    self._operator(text)
                case "heredoc":
                    self._drop(token.start, token.end, "heredoc", "\n")
                case "comment":
                    if len(text) > MAX_LITERAL:
                        self._drop(token.start, token.end, "comment")
            self._before = text
        for start, end in self._printed:
            if start < self._last_writer:
                self._drop(start, end, "data")
        return self._spans

    def _operator(self, sign: str) -> None:
        if sign in ("(", "$("):
            self._outside.append((self._program, self._feeds))
            self._program, self._feeds = "", self._before == "<"
        elif sign == ")":
            self._program, self._feeds = self._outside.pop() if self._outside else ("", False)
        elif not sign.startswith(("<", ">", "&>")):
            self._program = ""

    def _word(self, token: Token, text: str) -> None:
        name = text.strip("'\"").rpartition("/")[2]
        if self._before in _REDIRECTS:
            if not text.startswith(_SCREEN):
                self._last_writer = token.start
        elif name in _FILE_WRITERS:
            self._last_writer = token.start
        if self._before == "<<<":
            self._drop(token.start, token.end, "data")
        elif self._program in _SHELLS and _SCRIPT_FLAG.fullmatch(self._before) and token.literal_start == token.start:
            self._script(token, text)
        elif not (self._program in _SENDERS and self._sent(token, text)):
            if self._is_command(token, text):
                self._script(token, text)
            else:
                self._literal(token, text)
        if self._before in _REDIRECTS:
            return
        if self._program in _PRINTERS:
            if self._feeds:
                self._drop(token.start, token.end, "data")
            else:
                self._print(token)
        elif not self._program and not (
            _ASSIGNED.match(text) or text in _KEYWORDS or text in _PREFIXES or text.startswith("-")
        ):
            self._program = name

    def _print(self, token: Token) -> None:
        if self._printed and not self._command[self._printed[-1][1] : token.start].strip():
            self._printed[-1] = (self._printed[-1][0], token.end)
        else:
            self._printed.append((token.start, token.end))

    def _sent(self, token: Token, text: str) -> bool:
        """Drops data that a program sends; returns whether this was any. The name of a file that it sends stays."""
        if (flag := _DATA_FLAG.fullmatch(self._before)) and not flag["assigned"] and not flag["value"]:
            start = token.start
        elif (flag := _DATA_FLAG.fullmatch(text)) and flag["value"]:
            start = token.start + flag.start("value")
        else:
            return False
        if not self._command.startswith(("@", "'@", '"@'), start):
            self._drop(start, token.end, "data")
        return True

    def _is_command(self, token: Token, text: str) -> bool:
        """Whether a flag's value is a command that may carry content, as in `--exec 'echo … > file'`."""
        start, end = token.literal_start, token.literal_end
        if start < 0 or end != token.end or not 0 < end - start <= MAX_LITERAL:
            return False
        flag = self._command[token.start : start] if start > token.start else self._before
        if not flag.startswith("-") or (start > token.start and not _ASSIGNED.fullmatch(flag)):
            return False
        return "\n" not in (value := self._command[start:end]) and _is_suspect(value)

    def _script(self, token: Token, text: str) -> None:
        """Shows a script passed to a shell or as a flag's value, without its content."""
        if self._depth == _DEEPEST:
            self._drop(token.start, token.end, "script")
            return
        if token.literal_start > token.start:  # --flag='…'
            token = token._replace(start=token.literal_start)
            text = self._command[token.start : token.end]
        quote = text[:2] if text[0] == "$" else text[0]
        script = text[len(quote) : token.literal_end - token.start].removesuffix(quote[-1])
        if quote != "'":
            script = re.sub(r"\\([\"\\$`])", r"\1", script)
        script = without_content(script, self._depth + 1)
        self._spans.append(Span(token.start, token.end, f"{quote}{script}{quote[-1]}"))

    def _literal(self, token: Token, text: str) -> None:
        """Drops a long literal and what is joined to it, which may be the rest of a secret; a leading `name=` stays."""
        literal = self._command[token.literal_start : token.literal_end] if token.literal_start >= 0 else ""
        if (len(literal) > MAX_LITERAL or "\n" in literal or len(text) > _MAX_WORD) and not _URL.fullmatch(text):
            name = _ASSIGNED.match(text)
            self._drop(token.start + (name.end() if name else 0), token.end, "literal")

    def _drop(self, start: int, end: int, kind: str, after: str = "") -> None:
        if start < end:
            size = len(self._command[start:end].encode("utf-8", "replace"))
            self._spans.append(Span(start, end, f"[{kind}: {size} bytes]{after}"))
