"""Settings that would leave a service open are refused at boot, with a sentence that says what to set."""

import pytest

from demo.processes import Service, run_command, start_service
from recording.channel.options import is_local
from tests.support.certificates import Authority

SERVICES = {
    "audit_svc": ("AUDIT", {}),
    "gateway_svc": ("GATEWAY", {"GATEWAY_OLLAMA_URL": "http://127.0.0.1:9", "GATEWAY_OLLAMA_MODEL": "m"}),
}
SERVES = {"audit_svc": "SERVING", "gateway_svc": "NOT_SERVING: ollama: ConnectError"}
"""The gateway's engine is not there."""


def env_of(module: str, tmp_path, **settings: str) -> dict[str, str]:
    prefix, env = SERVICES[module]
    where = {"AUDIT_DB": str(tmp_path / "audit.db"), "GATEWAY_STATE_DIR": str(tmp_path / "state")}
    return {**env, **where, **{f"{prefix}_{name}": value for name, value in settings.items()}}


@pytest.mark.parametrize(
    ("listen", "local"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/run/x.sock", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("audit.example:1", False),
        ("localhost.example:1", False),
        (":1", False),
        ("dns:///localhost:1", False),
    ],
)
def test_only_addresses_of_this_machine_are_local(listen, local):
    assert is_local(listen) == local


@pytest.mark.long
@pytest.mark.parametrize("module", ["audit_svc", pytest.param("gateway_svc", marks=pytest.mark.long(nightly=True))])
def test_an_open_deployment_is_refused(tmp_path, module):
    ca, prefix = Authority(tmp_path), SERVICES[module][0]
    pair = ca.server()
    tls = {"TLS_CERT": str(pair.certificate), "TLS_KEY": str(pair.key)}
    for settings, told in (
        ({"LISTEN": "0.0.0.0:0"}, f"{prefix}_ALLOW_PLAINTEXT_ON_NETWORK=true"),
        ({"LISTEN": "127.0.0.1"}, f"{prefix}_LISTEN: must be host:port"),
        ({"LISTEN": "127.0.0.1:99999"}, f"{prefix}_LISTEN: must be host:port"),
        ({"METRICS_LISTEN": "127.0.0.1:99999"}, f"{prefix}_METRICS_LISTEN: must be host:port"),
        ({"TLS_CERT": str(pair.certificate)}, f"{prefix}_TLS_KEY: is not set"),
        ({"TLS_KEY": str(pair.key)}, f"{prefix}_TLS_CERT: is not set"),
        ({"TLS_CLIENT_CA": str(ca.path)}, f"{prefix}_TLS_CLIENT_CA: needs {prefix}_TLS_CERT"),
        ({**tls, "TLS_CLIENT_CA": str(ca.path)}, f"{prefix}_TLS_CLIENT_CA: needs {prefix}_TOKENS_FILE"),
        ({"TOKENS_FILE": str(tmp_path / "none")}, "none: cannot be read"),
        ({**tls, "TLS_KEY": str(ca.path)}, "ca.pem: is not a private key"),
    ):
        ran = run_command(module, env_of(module, tmp_path, **settings), "serve")
        assert ran.returncode == 2, (settings, ran.stderr)
        assert told in ran.stderr


def start(module: str, tmp_path, **settings: str) -> Service:
    return start_service(module, env_of(module, tmp_path, **settings), "serve")


@pytest.mark.long
@pytest.mark.parametrize("module", SERVICES)
def test_the_network_is_listened_on_when_the_setting_or_a_certificate_says_so(tmp_path, module):
    pair = Authority(tmp_path).server()
    tls = {"TLS_CERT": str(pair.certificate), "TLS_KEY": str(pair.key)}
    for settings in ({"ALLOW_PLAINTEXT_ON_NETWORK": "true"}, tls):
        with start(module, tmp_path, LISTEN="0.0.0.0:0", **settings) as service:
            assert service.terminate() == 0


@pytest.mark.long
@pytest.mark.parametrize("module", SERVICES)
def test_a_unix_socket_can_be_listened_on_and_probed(tmp_path, module):
    address = f"unix:{tmp_path / 's.sock'}"
    with start(module, tmp_path, LISTEN=address) as service:
        assert service.address == address
        ran = run_command(module, {}, "health", "--live", "--target", address)
        assert (ran.returncode, ran.stdout.strip()) == (0, f"{address}: {SERVES[module]}")
    assert run_command(module, {}, "health", "--target", address, "--timeout", "2").returncode == 1
