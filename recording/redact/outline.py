"""The outline of a command, for records that keep no values: programs, subcommands, and flags without their values."""

import re

from recording.redact.randomness import is_name
from recording.redact.shell import Scanner

# Programs whose first word says what they do. Elsewhere it may be anything.
_WITH_SUBCOMMANDS = frozenset(
    (
        *("ansible-vault", "apt", "apt-get", "aws", "az", "brew", "bundle", "cargo", "composer", "conda", "docker"),
        *("dotnet", "flyctl", "gcloud", "gem", "gh", "git", "glab", "go", "helm", "heroku", "ip", "journalctl"),
        *("kubectl", "nmcli", "npm", "openssl", "pip", "pip3", "pnpm", "podman", "poetry", "rustup", "systemctl"),
        *("terraform", "uv", "vault", "yarn"),
    )
)
_SUBCOMMAND = re.compile(r"[a-z][a-z-]{1,19}")
_LONG_FLAG = re.compile(r"--[A-Za-z][A-Za-z-]{0,39}(?==|\Z)")
_SHORT_FLAG = re.compile(r"-[A-Za-z]")
# Those of `sudo`, `env`, `nice`, `xargs`, `time` and `exec` that take the next word, and what looks like them.
_WITH_VALUE = re.compile(r"-[A-Za-z]*[ughpCDRTUnIPLdasfoS]|--[a-z-]+")
_ASSIGNED = re.compile(r"\w+\+?=")
_KEYWORDS = frozenset(("!", "{", "}", "do", "done", "elif", "else", "esac", "fi", "if", "then", "while", "until"))
_PREFIXES = frozenset(("builtin", "command", "doas", "env", "exec", "nice", "nohup", "sudo", "time", "xargs"))
_LOOPS = frozenset(("case", "for", "function", "select"))
_BETWEEN = frozenset(("|", "||", "&&", ";", "&", "\n", "(", "$(", ")"))


def outline(command: str) -> str:
    """Programs, subcommands and flags, and what joins the commands. Of a short flag, the first letter alone."""
    shown: list[str] = []
    program = ""
    first = skipping = False
    for token in Scanner(command).tokens():
        text = command[token.start : token.end]
        if token.kind == "operator":
            if text in _BETWEEN:
                program = ""
                if text in ("|", "||", "&&"):
                    shown.append(text)
                elif shown and shown[-1] != ";":
                    shown.append(";")
            skipping = text not in _BETWEEN
        elif skipping:
            skipping = False
        elif token.kind == "word":
            name = text.rpartition("/")[2]
            if not program:
                if text in _KEYWORDS or _ASSIGNED.match(text):
                    continue
                if text.startswith("-"):  # a flag of `sudo` and the like
                    shown += _flag(text)
                    skipping = _WITH_VALUE.fullmatch(text) is not None
                    continue
                if text in _LOOPS:
                    program = text
                elif name in _PREFIXES:
                    shown.append(name)
                    continue
                else:
                    program = name if is_name(name) else "(program)"
                shown.append(program)
                first = program in _WITH_SUBCOMMANDS
            elif text.startswith("-"):
                shown += _flag(text)
                first = False
            elif first:
                first = False
                if _SUBCOMMAND.fullmatch(text):
                    shown.append(text)
    while shown and shown[-1] == ";":
        shown.pop()
    return " ".join(shown)


def _flag(text: str) -> list[str]:
    found = _LONG_FLAG.match(text) or _SHORT_FLAG.match(text)
    return [found.group()] if found else []
