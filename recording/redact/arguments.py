"""Finds passwords by where they stand in a command: after a login's flag, an account's name, or in a script's words."""

import re
from collections.abc import Iterator

from recording.redact.shape import is_mixed, is_odd
from recording.redact.spans import Span, marker


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MARK = marker("argument")
_DEEPEST = 2
# What joins commands, or a word with its quoted pieces. Each character is read once.
_TOKEN = re.compile(
    r"([;|&\n()`]+(?:[ \t]*#[^\n]*)?)|[<>]+&?|(?:\A|(?<=\s))#[^\n]*"
    r"|((?:[^\s\"'\\;|&()<>`]++|\\.|\"(?:[^\"\\]++|\\.)*+\"?|'[^']*+'?)++)|\\",
    re.DOTALL,
)
_ASSIGNED = re.compile(r"[A-Za-z_]\w*\+?=")
_NO_QUOTES = str.maketrans("", "", "\"'")
_RUNNERS = _words(
    """
    ansible bash chroot dash docker eval ksh kubectl nsenter oc pm3 podman script sh ssh sshpass su timeout tmux
    watch wsl zsh
    """
)
_KEYWORDS = _words(
    """
    ! do done elif else esac fi if then until while { }
    """
)
_PREFIXES = _words(
    """
    builtin bunx command doas env exec nice nohup npx pipx proxychains stdbuf sudo time timeout torsocks uvx
    watch xargs
    """
)
_PREFIX_WITH_VALUE = re.compile(r"-[A-Za-z]*[ughpCDRTUnIPLdasfok]")
_INTERPRETERS = _words(
    """
    . bash bun dash deno ksh node perl php pwsh python python3 ruby sh source ts-node tsx zsh
    """
)
_SCRIPT = re.compile(r".*/.*|.*\.(?:sh|bash|py|rb|js|ts|mjs|pl|php|ps1|bat|cmd|exe|jar)")
# Programs whose words are names, files, patterns and texts, and whose `-p` is no password.
_ORDINARY = _words(
    """
    [ [[ adb addr2line age alembic alias ansible ansible-galaxy ansible-lint ansible-playbook apk apt apt-cache
    apt-get autossh avrdude awk aws az base64 basename bat bats bazel bc black brew buf bun bundle bzip2 c++filt
    cabal cargo case cat cd chgrp chmod chown clang cmake cmp codesign column comm composer conda convert cp
    createdb crontab css curl cut date dd declare deno df diff dig dirname dmesg dnf docker docker-compose doctl
    dpkg dropdb du dune echo egrep elixir eslint esptool exit export eza false fd ffmpeg ffprobe fgrep file find
    firebase flake8 flutter fold for free function g++ gawk gcc gcloud gdb gem gh ghc git glab go go-task gofmt
    golangci-lint gradle grep gunicorn gunzip gzip head helm helmfile hexdump host hostname hugo id iex ifconfig
    install ionice ip iperf3 iptables isort java javac jekyll jest join journalctl jq just k9s kill killall kind
    kubectl kubectx kubens kustomize last less ln local locale-gen locate ls lsof lua magick make man mariadb
    md5sum minikube mix mkdir mount mv mvn mycli mypy mysql mysqladmin mysqldump mysqlimport nano nc netstat ng
    nginx nice nl nmap nmcli node nox npm nproc nslookup objdump ocaml od opam packer parallel paste patch perf
    perl pg_basebackup pg_dump pg_isready pg_restore pgrep php pidstat ping pip pip3 pkill pnpm podman poetry
    popd pre-commit prettier printenv printf protoc ps psql pstree pushd pwd pyenv pylint pytest python python3
    rails rake read readelf readlink readonly realpath rebar3 redis-cli rename renice return rev rg rm rmdir
    rspec rsync ruby ruff rustc rustup sar sbt scp screen sed select seq serve set sha1sum sha256sum shellcheck
    shred shuf skaffold sleep sort source split sqlite3 ss ssh stack stat stern strace strings sum swift sync
    sysctl systemctl tac tail tar taskset tcpdump tee terraform terragrunt test tilt time tmux top touch tox tr
    traceroute trap tree true tsc tshark type ulimit umount uname uniq unset unxz unzip uptime uv uvicorn
    vagrant vi vim virtualenv visudo vite wait watch wc wget which whoami whois wrk xargs xxd xz yarn yq yum
    zcat zgrep zig zsh zstd
    """
)
_PLAIN = _ORDINARY - _RUNNERS - _INTERPRETERS - _PREFIXES
# The first word of each command, and of what looks like one.
_HEAD = re.compile(r"(?:\A|[;&|(`\n])[ \t;&|(`\n]*([^\s;&|(`]+)")
_PRINTERS = frozenset(("echo", "printf", "yes"))
# A program that is no filter of texts. Those that run others are not told from filters.
_FED = re.compile(
    r"[ \t]*(?:sudo[ \t]+)?(?:[\w./-]*/)?(?!(?:"
    + "|".join(map(re.escape, sorted((_ORDINARY | _INTERPRETERS | {"openssl"}) - {"nc"})))
    + r")(?![\w.-]))[\w.-]"
)
_LINE = re.compile(r"(?<=n)[^\s\\\"']{6,64}(?=\\n)")
_INNER_CAPITAL = re.compile(r"[a-z]-?[A-Z]")
# A name that is asked for with a password.
_USER_FLAG = re.compile(
    r"--?(?:u|U|l|user|username|login|user-?name|usr|account|admin|bind-?dn|D)(?:=.*)?|-[uU][\w.@-]+", re.DOTALL
)
_PASS_FLAGS = frozenset(("-p", "-P", "-pw", "-PW", "-w", "-W"))
_PASS_JOINED = re.compile(r"-(?:p|P|pw|PW|w|W)=(.*)|-[pP]([^\s=\d/:.-].*)", re.DOTALL)
_NAMED = frozenset(("-a", "-n", "-c"))
_KEY_FLAG = re.compile(r"--?(?:[\w.-]+[.-])?(?:key|serial|licen[cs]e|hash(?:es)?|H|k|K|pat)")
_RANDOM = re.compile(
    r"(?:[a-z]+_)?[0-9a-fA-F:]{12,}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|(?=.*[0-9])[A-Z0-9]{4,6}(?:-[A-Z0-9]{4,6}){3,}"
)
_ENDINGS = _words(
    """
    7z apk bak bin bz2 c cer cfg cnf conf cpp crt cs csproj csv db deb dic dll doc docx dump env exe gguf gif go
    gz h htm html img ini ipa ipynb iso j2 jar java jks jpeg jpg js json kdb kdbx key keystore kt lock log lst
    md mkv mod mp3 mp4 p12 pdf pem pfx php pl png ppt pptx proto py rar rb rpm rs rst sh sln so sql sqlite svg
    swift tar tgz tmpl toml tpl ts tsv txt vdf vsix war wav whl xls xlsx xml xz yaml yml zip
    """
)
_FILE = re.compile(r".*\.(?:" + "|".join(sorted(_ENDINGS)) + ")", re.IGNORECASE | re.DOTALL)
_HOST = re.compile(
    r"(?:[\w-]+\.)+[a-z]{2,12}(?::[0-9]+)?|[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?::[0-9]+)?|https?://.*|localhost(?::[0-9]+)?|.*[\w.]@[\w-]+\.\w+|\w+\[.*",
    re.DOTALL,
)
_LOGIN = re.compile(r"[\w.@+-]+[,:%](.{6,})", re.DOTALL)
_VERB = re.compile(
    r"(?:\A|[:_+-])(?:log-?in|log-?on|sign-?in|auth(?:enticate)?|pair|unlock|unseal|decrypt)\Z"
    r"|(?!.*policy|.*reset-|.*generic|.*internet)(?:passw|passphrase|setpass|chpass|set-?pw|-pw)",
    re.IGNORECASE,
)
_MAY_HAVE_VERB = re.compile(r"log-?[io]n|sign-?in|auth|pair|unlock|unseal|decrypt|pass|pw", re.IGNORECASE)
_STORED = re.compile(
    r"(?:[\w-]*[-_])?(?:secrets?|vars?|variables?|keyring|keystore|credentials?)(?:[-_:](?:set|put|add|create))?"
)
_STORES = _words(
    """
    add create import insert put set store update write
    """
)
_DIGITS = re.compile(r"[0-9!@#$%^&*]")
_ACCOUNT = re.compile(
    r"(?i:root|admin|administrator|sysadmin|superuser|superadmin|sysdba|sys|sa|postgres|mysql|oracle|operator|ops|guest|user\d"
    r"|admin\d|deploy(?:er)?|jenkins|backup|service|svc[\w-]*|readonly|reader|writer|app(?:user)?|dba|manager|owner|monitor)"
    r"|[\w.+-]+@[\w.-]+\.[a-z]{2,}"
)
_NO_PASSWORD = re.compile(
    r"[0-9]{1,5}|[0-9]+[.:,%][0-9.:,%]*|[\w.-]*:[0-9]+:[0-9]+|.*/.*|\$.*|<.*|\{.*|-.*|.*\s.*\s.*\s.*\s.*|", re.DOTALL
)
# Where a variable's value goes as a password.
_USED = re.compile(
    r"(?:(?<![\w-])-p|pass\w*|pwd|secret|token|key|auth|\w:|[Bb]earer|PRIVATE-TOKEN:)"
    r"[=: ]{0,2}[\"']{0,2}\$\{?([A-Za-z_]\w*)"
)


_Word = tuple[int, int, str, bool]
"""Where a word begins and ends, the word without quotes, and whether it begins with one. A plain tuple, made fast."""


def find(command: str) -> list[Span]:
    """The arguments of a command that are passwords by their place."""
    spans = [] if _PLAIN.issuperset(_HEAD.findall(command)) else [Span(*place, _MARK) for place in _places(command, 0)]
    if "$" in command and "=" in command:
        spans += _variables(command)
    return spans


def _places(text: str, depth: int) -> Iterator[tuple[int, int]]:
    words: list[_Word] = []
    for token in _TOKEN.finditer(text):
        start, end = token.span()
        if token[1]:
            yield from _of_command(text, words, depth)
            if token[1] == "|" and words[1:] and words[0][2] in _PRINTERS and _FED.match(text, end):
                yield from _printed(text, words[1:])
            words = []
        elif token[2]:
            word = token[2]
            if "'" in word or '"' in word:
                words.append((start, end, word.translate(_NO_QUOTES), word[0] in "\"'"))
            else:
                words.append((start, end, word, False))
    yield from _of_command(text, words, depth)


def _printed(text: str, words: list[_Word]) -> Iterator[tuple[int, int]]:
    """What is fed to a program that does not work on text, where it is a word or a line that may be a password."""
    for start, end, word, quoted in words:
        if "\\n" in word:
            for line in _LINE.finditer(text, start, end):
                if is_mixed(line[0]) or _INNER_CAPITAL.search(line[0]):
                    yield line.span()
        elif " " not in word and "%" not in word and word[:1] != "-" and len(word) > 5:
            marked = _DIGITS.search(word) or (quoted and _INNER_CAPITAL.search(word))
            if marked and not _is_ordinary(word):
                yield start, end


def _of_command(text: str, words: list[_Word], depth: int) -> Iterator[tuple[int, int]]:
    """The passwords among the words of one command."""
    first = _program(words)
    if len(words) - first < 2:
        return
    path = words[first][2]
    program = path.rpartition("/")[2]
    if program in _RUNNERS and depth < _DEEPEST:
        for start, end, word, quoted in words[first + 1 :]:
            if quoted and " " in word:
                for inner_start, inner_end in _places(text[start + 1 : end - 1], depth + 1):
                    yield start + 1 + inner_start, start + 1 + inner_end
    if program in _INTERPRETERS and _SCRIPT.fullmatch(words[first + 1][2]):
        first += 1
    elif program in _ORDINARY and not _SCRIPT.fullmatch(path):
        return
    yield from _by_flags(words[first + 1 :])
    positional = [
        word
        for before, word in zip(words[first:], words[first + 1 :], strict=False)
        if word[2][:1] != "-" and (before[2][:1] != "-" or "=" in before[2])
    ]
    verbs = _MAY_HAVE_VERB.search(text, words[first][0], words[-1][1]) is not None
    yield from _by_position(words[first][2], positional, verbs=verbs)


def _by_flags(words: list[_Word]) -> Iterator[tuple[int, int]]:
    user = False
    before = ""
    for start, end, text, quoted in words:
        if text[:1] == "-":
            if user and (flag := _PASS_JOINED.fullmatch(text)) and (value := flag[1] or flag[2]):
                if is_mixed(value) and not _is_ordinary(value):
                    yield start + 2, end
            elif "=" in text and _USER_FLAG.fullmatch(text):
                user = "/" not in text
        elif before[:1] == "-":
            if _USER_FLAG.fullmatch(before):
                user = "/" not in text
                if (login := _LOGIN.fullmatch(text)) and is_mixed(login[1]) and not _is_ordinary(login[1]):
                    yield end - len(login[1]) - quoted, end
            elif before in _PASS_FLAGS or (user and before == "-a" and len(text) > 4):
                marked = user or (" " not in text and (quoted or _DIGITS.search(text) or is_mixed(text)))
                if marked and not _is_ordinary(text):
                    yield start, end
            elif before in _NAMED and (login := _LOGIN.fullmatch(text)) and is_mixed(login[1]):
                if not _is_ordinary(login[1]):
                    yield end - len(login[1]) - quoted, end
            elif is_odd(text) or (_KEY_FLAG.fullmatch(before) and _is_key(text)):
                yield start, end
        before = text


def _by_position(program: str, words: list[_Word], *, verbs: bool) -> Iterator[tuple[int, int]]:
    """The passwords among a command's words that are no flag's.

    verbs: whether one of the words may be `login` or the like, after which a password may stand.
    """
    verb, said = None, ""
    if verbs and _VERB.search(program.rpartition("/")[2].partition(".")[0]):
        verb = -1
    before = ""
    for index, (start, end, text, quoted) in enumerate(words):
        digits = _DIGITS.search(text) is not None
        if digits and (is_odd(text) or (_ACCOUNT.fullmatch(before) and _after_account(text))):
            yield start, end
        elif verb is not None and (index > verb + 1 or quoted):
            if (quoted or index > verb + 2 or digits or said[:1] == "+") and not _is_ordinary(text):
                yield start, end
        elif _is_stored(words, index) and not _is_ordinary(text):
            yield start, end
        if verbs and verb is None and _VERB.search(text):
            verb, said = index, text
        before = text


def _is_stored(words: list[_Word], index: int) -> bool:
    """Whether a word is the value in `secrets set NAME VALUE` or the like."""
    return (
        index > 2
        and words[index - 2][2] in _STORES
        and _STORED.fullmatch(words[index - 3][2]) is not None
        and len(words[index][2]) > 5
    )


def _is_key(text: str) -> bool:
    return _RANDOM.fullmatch(text) is not None or (is_mixed(text) and not _is_ordinary(text))


def _is_ordinary(text: str) -> bool:
    """Whether a word that stands where a password may stand is another's: a number, path, file, host or variable."""
    return bool(_NO_PASSWORD.fullmatch(text) or _FILE.fullmatch(text) or _HOST.fullmatch(text))


def _after_account(text: str) -> bool:
    return not _NO_PASSWORD.fullmatch(text) and (is_mixed(text) or bool(re.search(r"[a-z].*[0-9]$", text)))


def _program(words: list[_Word]) -> int:
    """The place of the word that names the program."""
    at = 0
    while at < len(words):
        text = words[at][2]
        if text in _KEYWORDS or _ASSIGNED.match(text):
            at += 1
        elif text in _PREFIXES:
            at += 1
            while at < len(words) and words[at][2].startswith("-"):
                at += 1 + (_PREFIX_WITH_VALUE.fullmatch(words[at][2]) is not None)
        else:
            break
    return at


def _variables(text: str) -> Iterator[Span]:
    """The values of variables that are used as passwords."""
    for name in dict.fromkeys(_USED.findall(text)):
        for value in re.finditer(rf"(?:^|[\s;&|(]){name}=(\"[^\"$\n]+\"|'[^'\n]+'|[^\s;&|\"'$()`]+)", text):
            if len(value[1]) >= 6 and not _NO_PASSWORD.fullmatch(value[1].strip("\"'")):
                yield Span(*value.span(1), _MARK)
