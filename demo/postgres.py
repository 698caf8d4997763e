"""A PostgreSQL server of its own: in a folder, on a free port, gone when closed. For demo, tests, benchmarks.

It needs the programs of PostgreSQL 15 or later: those in the folder that POSTGRES_BIN names, or of Debian's packages.
PostgreSQL refuses to run as root, so root starts it as the user `postgres`, or `nobody`.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

MISSING = (
    "PostgreSQL 15 or later is needed: install Debian's package postgresql, or set POSTGRES_BIN to a folder with "
    "initdb and postgres"
)
START_SECONDS = 60


def find_binaries() -> Path | None:
    """The folder with initdb and postgres, of the newest version; None where there is none."""
    if named := os.environ.get("POSTGRES_BIN"):
        folders = [Path(named)]
    else:
        # "9.6" sorts above "15" as a text, and is not among those that can be used.
        found = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdecimal()]
        folders = sorted(found, key=lambda path: int(path.parent.name), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


class PostgresServer:
    """A running server, whose only user is `onrecord`, without a password, a superuser.

    folder: an empty one for it, such as a small file system; one of its own by default, in either case removed.
    synced: whether commits are synced to the disk, as they are by default; tests that end no machine save the time.
    settings: lines of postgresql.conf by name.

    Raises FileNotFoundError if PostgreSQL's programs are not there, and RuntimeError if it does not start.
    """

    def __init__(
        self, *, synced: bool = True, settings: dict[str, str] | None = None, folder: Path | None = None
    ) -> None:
        if (binaries := find_binaries()) is None:
            raise FileNotFoundError(MISSING)
        self._binaries = binaries
        # Not below a folder that only root may enter. A socket's path has 107 bytes at most.
        self.folder = folder or Path(tempfile.mkdtemp(prefix="onrecord-pg-", dir="/tmp"))
        self._user = _unprivileged_user()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        if self._user:
            shutil.chown(self.folder, self._user)
        self._run("initdb", "-D", str(self.data), "-U", "onrecord", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        lines = {
            "listen_addresses": "'127.0.0.1'",
            "port": str(self.port),
            "unix_socket_directories": f"'{self.folder}'",
            "fsync": "on" if synced else "off",
            "max_connections": "100",
            **(settings or {}),
        }
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.writelines(f"{name} = {value}\n" for name, value in lines.items())
        self.start()

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What the server has logged."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    @property
    def pid(self) -> int:
        """The process of the server, whose children serve the connections."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    def url(self, database: str = "postgres", user: str = "onrecord") -> str:
        """Where a database is, in the form that libpq takes."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str, template: str = "template1") -> str:
        """Makes an empty database, or a copy of another, and returns its URL."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Removes a database, and ends the connections to it."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def execute(self, statement: str, database: str = "postgres") -> str:
        """Runs SQL by psql, and returns its rows, with `|` between columns."""
        return self._run(
            "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", self.url(database), "-c", statement
        )

    def run(self, script: str, database: str = "postgres") -> None:
        """Runs what psql takes on its input: statements, and the lines of COPY between them."""
        self._run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", self.url(database), told=script)

    def start(self) -> None:
        """Starts the server, also again after kill(), and waits until it answers."""
        with (self.folder / "log").open("ab") as log:
            # Ended with the process that started it, however that ends. By a program, since a fork beside gRPC's
            # threads may hang; it sets the mark after it has changed the user, which would clear it.
            tied = ["setpriv", "--pdeathsig=QUIT"]
            if self._user:
                group = str(pwd.getpwnam(self._user).pw_gid)
                tied += [f"--reuid={self._user}", f"--regid={group}", "--clear-groups"]
            self._process = subprocess.Popen(
                [*tied, self._binaries / "postgres", "-D", self.data],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            ready = [
                str(self._binaries / "pg_isready"),
                "-q",
                "-h",
                "127.0.0.1",
                "-p",
                str(self.port),
                "-U",
                "onrecord",
            ]
            if subprocess.run(ready).returncode == 0:
                return
            time.sleep(0.02)
        raise RuntimeError(f"PostgreSQL did not start:\n{self.log[-2000:]}")

    def kill(self) -> None:
        """Ends the server and its children by SIGKILL, as a crash would."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Ends the server in good order, and the connections with it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # "fast": sessions are ended
            self._process.wait(timeout=START_SECONDS)
            self._process = None

    def close(self) -> None:
        """Ends the server and removes its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _run(self, program: str, *arguments: str, told: str | None = None) -> str:
        user = self._user if program == "initdb" else None
        done = subprocess.run(
            [self._binaries / program, *arguments],
            input=told,
            capture_output=True,
            encoding="utf-8",
            cwd=self.folder,
            # A client may run as anybody. As this user it is started without fork(), which gRPC's threads may break.
            user=user,
            group=pwd.getpwnam(user).pw_gid if user else None,
            extra_groups=[] if user else None,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr.strip()}")
        return done.stdout


def _unprivileged_user() -> str | None:
    if os.getuid() != 0:
        return None
    names = {user.pw_name for user in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"
