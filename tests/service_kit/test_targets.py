"""An address that no client can call is refused with exit code 2 by all commands, before anything is done."""

import pytest

import audit_svc.__main__
import gateway_svc.__main__
import intake_svc.__main__
import onrecord_cli.__main__
from service_kit.client import refuse_wrong_target
from service_kit.terminal.command import BadParameter
from tests.support.command_line import invoke

WRONG = [
    ("localhost", "'localhost' has no port: give host:port"),
    ("http://localhost:50052", "'http://localhost:50052' is a URL: give host:port, without http://"),
    ("localhost:http", "'localhost:http' is not an address: it must be host:port with a port from 1 to 65535"),
    ("localhost:0", "'localhost:0' is not an address: it must be host:port with a port from 1 to 65535"),
    ("localhost:70000", "'localhost:70000' is not an address: it must be host:port with a port from 1 to 65535"),
    ("fe80::1:50052", "'fe80::1:50052' is not an address: it must have its IPv6 address in brackets: [fe80::1]:50052"),
    ("::1", "'::1' has no host: give host:port"),
    (":50052", "':50052' has no host: give host:port"),
    ("", "is empty: give host:port"),
]
AUDIT = [
    *("calls", "show s", "tail", "export", "health", "hold list", "hold lift n --reason x", "backup copy.db"),
    *("prune --before 90d", "erase --session s --reason x", "verify --key k", "proof s"),
]
GATEWAY = ["run hi", "engines", "sessions", "sessions delete s", "stops", "approvals", "transcript s", "health"]


@pytest.mark.parametrize(
    ("program", "line"),
    [
        *((audit_svc.__main__.program, line) for line in AUDIT),
        *((gateway_svc.__main__.program, line) for line in GATEWAY),
        *((onrecord_cli.__main__.program, line) for line in ("run hi", "calls", "stops", "verify --key k")),
        (intake_svc.__main__.program, "health"),
    ],
)
@pytest.mark.parametrize(("target", "said"), WRONG[:2])
def test_commands_say_what_is_wrong_with_an_address(tmp_path, monkeypatch, program, line, target, said):
    monkeypatch.chdir(tmp_path)
    ran = invoke(program, [*line.split(), "--target", target])
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert ran.stderr.splitlines()[-1].endswith(f": --target: {said}")


@pytest.mark.parametrize(("target", "said"), WRONG)
def test_each_way_to_be_wrong_has_its_sentence(target, said):
    with pytest.raises(BadParameter) as refused:
        refuse_wrong_target(target)
    assert refused.value.message.startswith(said)


@pytest.mark.parametrize(
    "target",
    ["127.0.0.1:50052", "ledger.example:1", "[::1]:65535", "unix:/run/audit.sock", "dns:///audit:50052", "a_b.c:9"],
)
def test_what_grpc_takes_passes(target):
    refuse_wrong_target(target)


def test_an_address_of_the_environment_is_refused_by_its_variable(monkeypatch):
    monkeypatch.setenv("AUDIT_LISTEN", "localhost")
    ran = invoke(audit_svc.__main__.program, ["calls"])
    assert ran.exit_code == 2
    assert ran.stderr.splitlines()[-1].endswith(": AUDIT_LISTEN: 'localhost' has no port: give host:port")
