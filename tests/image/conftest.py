"""What an image says of itself, and its programs run as an engine runs them: their user, a root that is read-only."""

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from demo.processes import REPOSITORY

BUILDAH_ENV = {**os.environ, "STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
VERSION = next(
    line.split('"')[1] for line in (REPOSITORY / "pyproject.toml").read_text().splitlines() if "version = " in line
)

NAMES = ("audit", "gateway", "intake")

# A mount namespace of its own: the image read-only, /tmp in memory, the volume writable. Then the image's user, without
# a process in between, so that a signal reaches the service as it would reach a container's first process.
CONTAINER = """
set -e
mount --bind "$ROOT" "$ROOT"
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
mount -t tmpfs tmpfs "$ROOT/tmp"
mount --bind "$VOLUME" "$ROOT/var/lib/onrecord"
mount --bind "$SECRETS" "$ROOT/secrets"
mount -o remount,bind,ro "$ROOT"
exec env -i "$@"
"""


def buildah(*args: str) -> str:
    return subprocess.run(
        ["buildah", *args], env=BUILDAH_ENV, check=True, capture_output=True, text=True
    ).stdout.strip()


class Image:
    """A built image and a container of it. Its volume and its secrets are folders of the test's."""

    def __init__(self, name: str, root: Path, volume: Path, secrets: Path) -> None:
        self.name = name
        self.config: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", _full_name(name)))["Docker"][
            "config"
        ]
        self.root = root
        self.volume = volume
        self.secrets = secrets

    def command(self, *args: str, **env: str) -> tuple[list[str], dict[str, str]]:
        """What to start, and its environment, for args to run in the container."""
        inside = [*self.config["Env"], *(f"{name}={value}" for name, value in env.items())]
        chroot = ["/usr/sbin/chroot", f"--userspec={self.config['User']}", str(self.root)]
        return (
            ["unshare", "--mount", "sh", "-c", CONTAINER, "sh", *inside, *chroot, *args],
            {
                "PATH": os.environ["PATH"],
                "ROOT": str(self.root),
                "VOLUME": str(self.volume),
                "SECRETS": str(self.secrets),
            },
        )

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        command, environment = self.command(*args, **env)
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    def start(self, *args: str, **env: str) -> subprocess.Popen[bytes]:
        """Starts the entry point with args, its log in the file `log` of the volume's parent."""
        command, environment = self.command(*self.config["Entrypoint"], *args, **env)
        with (self.volume.parent / "log").open("wb") as log:
            return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def log(self) -> str:
        """What the entry point has written since it was started last."""
        return (self.volume.parent / "log").read_text()

    def healthy(self, **env: str) -> subprocess.CompletedProcess[str]:
        """Runs the image's own health check."""
        kind, *command = self.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        return self.run(*command, **env)

    def wait_until_healthy(self, process: subprocess.Popen[bytes], env: Mapping[str, str]) -> None:
        deadline = time.monotonic() + 120
        while self.healthy(**env).returncode != 0:
            assert process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.2)


def _full_name(name: str) -> str:
    return f"localhost/onrecord-{name}:{VERSION}"


@contextmanager
def _container(name: str, volume: Path, secrets: Path) -> Iterator[Image]:
    container = buildah("from", _full_name(name))
    try:
        root = Path(buildah("mount", container))
        (root / "secrets").mkdir()
        # As an engine makes a new volume: with the owner and the mode of the folder in the image.
        there = (root / "var/lib/onrecord").stat()
        volume.mkdir(there.st_mode & 0o777)
        os.chown(volume, there.st_uid, there.st_gid)
        yield Image(name, root, volume, secrets)
    finally:
        buildah("rm", container)


@pytest.fixture(scope="session")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deploy") / "secrets"
    subprocess.run([REPOSITORY / "deploy/make-certificates", folder], check=True)
    return folder


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory, secrets: Path) -> Iterator[dict[str, Image]]:
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(_container(name, tmp_path_factory.mktemp(name) / "volume", secrets / name))
            for name in NAMES
        }


@pytest.fixture(params=NAMES)
def image(request: pytest.FixtureRequest, images: dict[str, Image]) -> Image:
    return images[request.param]
