"""The types of settings. Each refuses what cannot be meant, and every setting of both services is of one of them.

A value's form is checked when the settings are read. What it names on this machine is checked when a service starts
(service_kit.settings.check_disk), since other commands must run without a service's keys and folders.
"""

import ipaddress
import os
import re
import shlex
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from recording.channel.token import check_token
from recording.channel.watched import WrongFile, read_file

YEAR_SECONDS = 366 * 86_400
MAX_INT32 = 2**31 - 1
MAX_PORT = 65_535
MAX_CHARACTERS = 1_024
MAX_SOCKET_PATH_BYTES = 107
"""Linux's limit, see unix(7)."""

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


def check_text(value: str) -> str:
    """One line of printable text without blanks around it."""
    if not value or value != value.strip() or not value.isprintable() or len(value) > MAX_CHARACTERS:
        raise ValueError(
            f"must be at most {MAX_CHARACTERS} printable characters, without blanks or line breaks around them"
        )
    return value


def check_secret(value: SecretStr) -> SecretStr:
    """What an HTTP header can carry: ASCII without blanks."""
    text = value.get_secret_value()
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError("must be printable ASCII without blanks or line breaks, also at its end")
    return value


def check_url(value: str) -> str:
    """An http or https URL."""
    try:
        parts = urlsplit(value)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, port = None, "", None
    good = parts and parts.scheme in ("http", "https") and (is_host(host) or is_host(_ascii(host))) and port != 0
    if not good or not value.isprintable() or " " in value:
        raise ValueError("must be a URL such as https://host:port/path, with a port from 1 to 65535 if any")
    return value


def check_database_url(value: SecretStr) -> SecretStr:
    """A URL of a PostgreSQL database, which may hold a password."""
    if not _is_database_url(value.get_secret_value()):
        raise ValueError("must be postgresql://user@host:5432/database")
    return value


def file_or_database(value: Any) -> Path | str:
    """A file as a path, or the URL of a PostgreSQL database, which may hold a password, as a text."""
    if not isinstance(value, str) or "://" not in value:
        return expand_home(Path(value))
    if not _is_database_url(value):
        raise ValueError("must be a file's path, or postgresql://user@host:5432/database")
    return value


def check_listen_address(value: str) -> str:
    """Where a server listens: host:port or unix:path."""
    if not _is_socket(value) and not _has_port(value, lowest=0):  # gRPC takes 70000 for a port, and listens on another
        raise ValueError("must be host:port with a port from 0, for a free one, to 65535, or unix:path")
    return value


def check_metrics_address(value: str) -> str:
    """Where metrics are served: host:port."""
    if not _has_port(value, lowest=0):
        raise ValueError("must be host:port with a port from 0, for a free one, to 65535, or empty for nowhere")
    return value


def check_socket_path(value: Path) -> Path:
    """The path of a Unix socket."""
    if not value.is_absolute() or not _is_socket(f"unix:{value}"):
        raise ValueError(f"must be an absolute path of at most {MAX_SOCKET_PATH_BYTES} bytes")
    return value


def check_target(value: str) -> str:
    """Where a client connects to, as gRPC names it (doc/naming.md of grpc), but never without a port."""
    name = re.sub(r"^dns:(//[^/]*/)?", "", value)
    addresses = value.partition(":")[2].split(",") if value.startswith(("ipv4:", "ipv6:")) else [name]
    if not _is_socket(value) and not all(_has_port(address, lowest=1) for address in addresses):
        raise ValueError("must be host:port with a port from 1 to 65535, dns:///host:port or unix:path")
    return value


def check_command(value: str) -> str:
    """A program and its arguments, quoted as for a shell."""
    try:
        words = shlex.split(check_text(value))
    except ValueError:
        words = []
    if not words or not words[0]:
        raise ValueError("must be a program and its arguments, quoted as for a shell")
    return value


def split_commas(value: Any) -> Any:
    """The parts of a text between its commas, without blanks around them; what is no text is returned as it is.

    Raises:
        ValueError: there are none.
    """
    if not isinstance(value, str):
        return value
    if parts := [part.strip() for part in value.split(",") if part.strip()]:
        return parts
    raise ValueError("names nothing: give at least one, or leave the variable unset")


def expand_home(path: Path) -> Path:
    """The path with the home folder that a `~` at its beginning stands for. Not every account has one."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError("names a home folder that is not there: give an absolute path") from None


def is_host(host: str) -> bool:
    """Whether host is an IP address or a name in ASCII."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        # what consists of digits and dots can only be meant as an address
        names = host.removesuffix(".").split(".")
        return not re.fullmatch(r"[0-9.]*", host) and all(map(_LABEL.fullmatch, names)) and len(host) <= 254
    return True


def _ascii(host: str) -> str:
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        return ""


def _is_database_url(text: str) -> bool:
    return bool(re.match(r"postgres(ql)?://", text)) and text.isprintable() and " " not in text


def _is_socket(value: str) -> bool:
    path = value.removeprefix("unix:")
    return path != value and check_text(path) == path and len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES


def _has_port(value: str, *, lowest: int) -> bool:
    host, _, port = value.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host and is_host(host):  # gRPC takes the port for the address's last part
        raise ValueError(f"must have its IPv6 address in brackets: [{host}]:{port}")
    return is_host(host) and re.fullmatch(r"[0-9]{1,5}", port) is not None and lowest <= int(port) <= MAX_PORT


@dataclass(frozen=True, slots=True)
class OnDisk:
    """Marks a setting that names something on this machine."""

    check: Callable[[Path], None]
    """Raises WrongFile where it cannot be used."""
    may_be_secret: bool = False
    """Whether people give the secret itself in its place by mistake, so that the value is not always shown."""


def file_with(check: Callable[[Path, bytes], object], *, may_be_secret: bool = False) -> OnDisk:
    """Marks a setting that names a file; `check` looks at its content, and raises WrongFile."""

    def read_and_check(path: Path) -> None:
        check(path, read_file(path))

    return OnDisk(read_and_check, may_be_secret)


def _check_any(path: Path, content: bytes) -> None:
    """Any content will do."""


def _check_certificates(path: Path, content: bytes) -> None:
    from recording.channel.certificates import check_certificates  # only with TLS: it takes long to load

    check_certificates(path, content)


def _check_key(path: Path, content: bytes) -> None:
    from recording.channel.certificates import check_key

    check_key(path, content)


def check_keys(path: Path, content: bytes) -> None:
    """A file of keys that services share."""
    from recording.key_file import parse_keys  # few have one

    parse_keys(path, content)


def _check_folder(path: Path) -> None:
    for folder in (path, *path.parents):
        try:
            mode = folder.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue  # it would be made
        except OSError as error:
            raise WrongFile(path, f"cannot be a folder ({error.strerror})") from None
        if not stat.S_ISDIR(mode):
            raise WrongFile(path, f"cannot be a folder, since {folder} is none")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise WrongFile(path, f"cannot be used, since this user may not write to {folder}")
        return


def _check_new_file(path: Path) -> None:
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            raise WrongFile(path, "is a folder: name a file")
    except (FileNotFoundError, NotADirectoryError):
        pass  # it would be made
    except OSError as error:
        raise WrongFile(path, f"cannot be a file ({error.strerror})") from None
    _check_folder(path.parent)


def _check_there(path: Path) -> None:
    if not path.is_absolute():
        raise WrongFile(path, "must be absolute")
    try:
        path.stat()
    except (OSError, ValueError) as error:
        raise WrongFile(path, f"is not there ({getattr(error, 'strerror', None) or 'no path'})") from None


Text = Annotated[str, AfterValidator(check_text)]
Secret = Annotated[SecretStr, AfterValidator(check_secret)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(check_database_url)]
HttpUrl = Annotated[str, AfterValidator(check_url)]
ListenAddress = Annotated[str, AfterValidator(check_listen_address)]
MetricsAddress = Annotated[str, AfterValidator(check_metrics_address)]
Target = Annotated[str, AfterValidator(check_target)]
Command = Annotated[str, AfterValidator(check_command)]
CommaList = Annotated[list[Text], NoDecode, BeforeValidator(split_commas)]

Seconds = Annotated[float, Field(gt=0, le=YEAR_SECONDS, allow_inf_nan=False)]
SecondsOrZero = Annotated[float, Field(ge=0, le=YEAR_SECONDS, allow_inf_nan=False)]
Milliseconds = Annotated[int, Field(ge=1, le=3_600_000)]
PerSecond = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=MAX_INT32)]
CountOrZero = Annotated[int, Field(ge=0, le=MAX_INT32)]
Bytes = Annotated[int, Field(ge=1, le=2**50)]
PortList = Annotated[list[Annotated[int, Field(ge=1, le=MAX_PORT)]], NoDecode, BeforeValidator(split_commas)]

HomePath = Annotated[Path, AfterValidator(expand_home)]
"""A path that may begin with `~`; with `validate_default=True` as its default too."""
SocketPath = Annotated[HomePath, AfterValidator(check_socket_path)]
Folder = Annotated[HomePath, OnDisk(_check_folder)]
"""One that the service makes if it is not there, and writes to."""
NewFile = Annotated[HomePath, OnDisk(_check_new_file)]
"""One that the service makes if it is not there."""
FileOrDatabase = Annotated[Path | str, BeforeValidator(file_or_database), OnDisk(_check_new_file)]
"""A NewFile, or the URL of a PostgreSQL database."""
ReadableFile = Annotated[HomePath, file_with(_check_any)]
CertificateFile = Annotated[HomePath, file_with(_check_certificates)]
KeyFile = Annotated[HomePath, file_with(_check_key, may_be_secret=True)]
KeysFile = Annotated[HomePath, file_with(check_keys, may_be_secret=True)]
"""Keys with ids, see recording.key_file."""
TokenFile = Annotated[HomePath, file_with(check_token, may_be_secret=True)]
PathList = Annotated[list[Annotated[HomePath, OnDisk(_check_there)]], NoDecode, BeforeValidator(split_commas)]
"""Absolute paths of what is there."""
