"""Runs commands of audit-svc, each in a process of its own and as any user.

It reads one JSON array a line, [uid, *arguments], and answers each with {"exit", "stdout", "stderr"}. The processes are
forks of this one, so that only the first pays for the imports.
"""

import json
import os
import sys
import tempfile
import traceback
from typing import IO, NoReturn

import audit_svc.__main__
import audit_svc.terminal.care
import audit_svc.terminal.compare
import audit_svc.terminal.export
import audit_svc.terminal.file
import audit_svc.terminal.producers
import audit_svc.terminal.queries
import audit_svc.terminal.schema


def main() -> None:
    """Answers until stdin ends."""
    for line in sys.stdin:
        uid, *arguments = json.loads(line)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = os.fork() or _run(uid, arguments, out, err)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            answer = {"exit": code, **{name: _text(file) for name, file in (("stdout", out), ("stderr", err))}}
        print(json.dumps(answer), flush=True)


def _run(uid: int, arguments: list[str], out: IO[bytes], err: IO[bytes]) -> NoReturn:
    code = 70  # of what is no exit code of a command
    try:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        if uid:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
        sys.argv = ["audit-svc", *arguments]
        audit_svc.__main__.main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except Exception:  # noqa: BLE001 - it is told on stderr
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


if __name__ == "__main__":
    main()
