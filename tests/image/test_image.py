"""The images as they were built (make test-image): what they say, what is in them, how their services live and die."""

import signal
import socket
from pathlib import Path

import pytest

from tests.image.conftest import VERSION

pytestmark = [pytest.mark.image, pytest.mark.timeout(180)]

IMPORT_ALL = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""


def name_of(image) -> str:
    return "gateway" if image.config["Entrypoint"] == ["gateway-svc"] else "audit"


def settings(image, port: int) -> dict[str, str]:
    """The least that the service needs to start."""
    address = f"127.0.0.1:{port}"
    if name_of(image) == "audit":
        return {"AUDIT_LISTEN": address}
    return {"GATEWAY_LISTEN": address, "GATEWAY_OLLAMA_URL": "http://127.0.0.1:9", "GATEWAY_OLLAMA_MODEL": "m"}


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_an_image_says_what_it_is_and_how_it_is_run(image):
    config = image.config
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] == "SIGTERM"
    assert list(config["Volumes"]) == ["/var/lib/onrecord"]
    assert config["Cmd"] == ["serve"]
    assert config["Healthcheck"]["Test"] == ["CMD", *config["Entrypoint"], "health"]
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert labels["title"] == f"onrecord {name_of(image)}_svc"
    assert labels["version"] == VERSION
    assert labels["description"]
    assert labels["revision"]


def test_a_service_runs_as_a_user_that_can_write_nothing_but_its_volume_and_tmp(image):
    tried = (
        "id -u; for folder in / /opt/onrecord /etc /usr /var /tmp /var/lib/onrecord; do test -w $folder && echo $folder"
    )
    assert image.run("/bin/sh", "-c", f"{tried}; done").stdout.split() == ["10001", "/tmp", "/var/lib/onrecord"]


def test_an_image_holds_nothing_that_compiles_or_installs_packages_of_python(image):
    found = image.run(
        "/bin/sh", "-c", "command -v gcc cc pip pip3; python3 -c 'import pip'; /opt/onrecord/bin/python -m pip"
    )
    assert found.stdout == ""
    assert found.stderr.count("No module named") == 2


def test_each_module_of_the_service_can_be_loaded_and_the_other_service_is_not_there(image):
    own, other = ("gateway_svc", "audit_svc") if name_of(image) == "gateway" else ("audit_svc", "gateway_svc")
    loaded = image.run("/opt/onrecord/bin/python", "-c", IMPORT_ALL, own, "service_kit", "onrecord")
    assert (loaded.returncode, loaded.stderr) == (0, "")
    assert f"No module named '{other}'" in image.run("/opt/onrecord/bin/python", "-c", f"import {other}").stderr


def test_the_gateways_image_has_the_sandbox_and_the_fast_grep(image):
    there = name_of(image) == "gateway"
    for tool in ("usr/bin/bwrap", "usr/bin/rg"):
        assert (image.root / tool).exists() is there


def test_a_service_gets_healthy_keeps_its_state_in_the_volume_and_ends_with_exit_code_0_at_sigterm(image, port):
    env = settings(image, port)
    stopped = image.healthy(**env)
    assert (stopped.returncode, "UNAVAILABLE" in stopped.stderr) == (1, True)
    process = image.start("serve", **env)
    try:
        image.wait_until_healthy(process, env)
        assert image.healthy(**env).stdout.strip() == f"127.0.0.1:{port}: SERVING"
        assert Path(f"/proc/{process.pid}/status").read_text().count("10001\t10001\t10001\t10001") == 2
        process.send_signal(signal.Signals[image.config["StopSignal"]])
        assert process.wait(30) == 0, (image.volume.parent / "log").read_text()
    finally:
        process.kill()
        process.wait()
    assert (image.volume / ("audit.db" if name_of(image) == "audit" else "spool")).exists()
    assert image.healthy(**env).returncode == 1
