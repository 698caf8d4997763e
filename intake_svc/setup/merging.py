"""Merges settings into a file that is an agent's, and takes them back: what was there stays as it was.

Beside FILE, `FILE.onrecord-backup` holds what it was, and `FILE.onrecord-written` the digest of what was written, how
many folders were made for it and, of JSON, what was added. While nobody has changed the file since, undoing gives the
original bytes; else only what was added is taken out, by whatever options it was made. Folders that are empty then go.
"""

import hashlib
import json
import tomllib
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

from intake_svc.setup.agents import File, text_of
from recording.replacing import replace_file

BEGIN, END = "# >>> onrecord: intake-svc setup", "# <<< onrecord"


class CannotMerge(Exception):
    """A file cannot be merged into; the message says why and what to do. The file is what it was."""


def write(file: File) -> bool:
    """Merges what a file needs into it; returns whether that changed anything.

    Raises:
        CannotMerge: see there.
        OSError: it cannot be read or written.
    """
    path = _real(file.path)
    old = path.read_bytes() if path.exists() else None
    backup, written = _beside(path)
    if old is not None and written.exists() and _digest(old) == _written_digest(written):
        base: bytes | None = backup.read_bytes() if backup.exists() else None  # ours, to be made anew
    else:
        base = _without(file, old) if written.exists() else old
        if file.how == "whole" and base is not None:
            raise CannotMerge(f"{path}: is there already, and is not of this command: move it away")
    new = _merged(file, base)
    if new == old:
        return False
    made = _folders_made(written) + sum(not folder.exists() for folder in path.parents)
    path.parent.mkdir(parents=True, exist_ok=True)
    if base is None:
        backup.unlink(missing_ok=True)
    else:
        replace_file(backup, base)
    added = f"\n{json.dumps(file.content)}" if file.how == "json" else ""
    replace_file(written, f"{_digest(new)} {made}{added}".encode())
    mode = path.stat().st_mode & 0o777 if old is not None else 0o600
    replace_file(path, new)
    path.chmod(mode)
    return True


def undo(file: File) -> bool:
    """Takes back what write() added; returns whether there was anything.

    Raises:
        CannotMerge: see there.
        OSError: it cannot be read or written.
    """
    path = _real(file.path)
    backup, written = _beside(path)
    if not written.exists():
        return False
    now = path.read_bytes() if path.exists() else None
    if now is not None:
        base = backup.read_bytes() if backup.exists() else None
        left = base if _digest(now) == _written_digest(written) else _without(file, now)
        if left is None:
            path.unlink()
        elif left != now:
            mode = path.stat().st_mode & 0o777
            replace_file(path, left)
            path.chmod(mode)
    made = _folders_made(written)
    backup.unlink(missing_ok=True)
    written.unlink()
    with suppress(OSError):  # somebody has more in it
        for folder in [*path.parents][:made]:
            folder.rmdir()
    return True


def _merged(file: File, base: bytes | None) -> bytes:
    if file.how == "whole" or base is None or not base.strip():
        text = _block(file) if file.how == "toml" else text_of(file)
        return (base or b"") + text.encode() if file.how == "toml" else text.encode()
    if file.how == "toml":
        return _appended(file, base)
    return _written_like(base, _joined(_parsed(file.path, base), file.content, file.path))


def _joined(there: Any, ours: Any, path: Path) -> Any:
    """Objects by their names, lists one behind the other, and else what is ours."""
    joined = deepcopy(there)
    for name, value in ours.items():
        if isinstance(value, dict) and name in joined:
            if not isinstance(joined[name], dict):
                raise CannotMerge(f"{path}: {name!r} should be an object: mend it, or merge by hand")
            joined[name] = _joined(joined[name], value, path)
        elif isinstance(value, list) and name in joined:
            if not isinstance(joined[name], list):
                raise CannotMerge(f"{path}: {name!r} should be a list: mend it, or merge by hand")
            joined[name] += [one for one in value if one not in joined[name]]
        elif joined.get(name, value) != value:
            raise CannotMerge(f"{path}: {name!r} has another value already: choose, and merge by hand")
        else:
            joined[name] = value
    return joined


def _without(file: File, now: bytes | None) -> bytes | None:
    """What is left without what is ours, of a file that somebody has changed since; None where nothing is."""
    if now is None:
        return None
    if file.how == "whole":
        raise CannotMerge(f"{file.path}: was changed since it was written: look at it, and remove it by hand")
    if file.how == "toml":
        text = now.decode()
        begin, end = text.find(BEGIN), text.find(END)
        if begin < 0 or end < begin:
            return now
        return (text[:begin] + text[end + len(END) :].removeprefix("\n")).encode()
    backup, written = _beside(_real(file.path))
    before = _parsed(file.path, backup.read_bytes()) if backup.exists() else {}
    added = written.read_text(encoding="utf-8").partition("\n")[2]
    left = _taken_out(_parsed(file.path, now), json.loads(added) if added else file.content, before)
    return _written_like(now, left) if left or backup.exists() else None


def _taken_out(now: Any, ours: Any, before: Any) -> Any:
    left = dict(now)
    for name, value in ours.items():
        if name not in left:
            continue
        was = before.get(name) if isinstance(before, dict) else None
        if isinstance(value, dict) and isinstance(left[name], dict):
            left[name] = _taken_out(left[name], value, was or {})
        elif isinstance(value, list) and isinstance(left[name], list):
            left[name] = [one for one in left[name] if one not in value or one in (was or [])]
        elif left[name] == value:
            left[name] = was
        else:
            continue  # somebody has chosen another value
        if was is None and left[name] in (None, {}, []):
            del left[name]
    return left


def _appended(file: File, base: bytes) -> bytes:
    text = base.decode()
    there = tomllib.loads(text)
    for table in tomllib.loads(file.content):
        if table in there and not (table == "hooks" and _are_lists(there[table])):
            raise CannotMerge(f"{file.path}: has [{table}] already: add by hand what `setup` prints without --write")
    new = text + ("" if text.endswith("\n") else "\n") + _block(file)
    tomllib.loads(new)
    return new.encode()


def _are_lists(table: Any) -> bool:
    return isinstance(table, dict) and all(isinstance(value, list) for value in table.values())


def _block(file: File) -> str:
    return f"{BEGIN}\n{file.content}{END}\n"


def _parsed(path: Path, data: bytes) -> Any:
    try:
        value = json.loads(data)
    except ValueError:
        raise CannotMerge(f"{path}: is not plain JSON (comments?): add by hand what `setup` prints") from None
    if not isinstance(value, dict):
        raise CannotMerge(f"{path}: should hold a JSON object")
    return value


def _written_like(model: bytes, value: Any) -> bytes:
    """JSON with the indentation of a file, and with a line's end where that has one."""
    text = model.decode()
    line = next((line for line in text.splitlines()[1:] if line.strip()), "")
    space = line[: len(line) - len(line.lstrip())]
    indent: str | int | None = (space if "\t" in space else len(space) or 2) if "\n" in text.strip() else 2
    return (json.dumps(value, indent=indent, ensure_ascii=False) + ("\n" if text.endswith("\n") else "")).encode()


def _real(path: Path) -> Path:
    """The file itself, where dotfiles are links."""
    return path.resolve()


def _beside(path: Path) -> tuple[Path, Path]:
    return path.with_name(path.name + ".onrecord-backup"), path.with_name(path.name + ".onrecord-written")


def _written_digest(written: Path) -> str:
    return written.read_text(encoding="utf-8").partition("\n")[0].partition(" ")[0]


def _folders_made(written: Path) -> int:
    said = written.read_text(encoding="utf-8").partition("\n")[0].partition(" ")[2] if written.exists() else ""
    return int(said) if said.isdecimal() else 0


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
