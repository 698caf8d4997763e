"""A wrong setting is told by its variable, and ends every program with exit code 2, whoever finds it wrong."""

import pytest

from tests.support.forked import run_command

SERVICES = {
    "audit_svc": ("AUDIT_", "AUDIT_DB"),
    "gateway_svc": ("GATEWAY_", "GATEWAY_STATE_DIR"),
    "intake_svc": ("INTAKE_", "INTAKE_STATE_DIR"),
}
"""By module: the prefix of its variables, and the one that names where its state is."""
WRONG = {"LISTEN": "nonsense", "LOG_LEVEL": "loud", "HEALTH_SECONDS": "never", "METRICS_LISTEN": "127.0.0.1:99999"}


@pytest.mark.parametrize("module", SERVICES)
@pytest.mark.parametrize("command", ["serve", "health"])
def test_wrong_values(tmp_path, module, command):
    prefix, _ = SERVICES[module]
    ended = run_command(module, {"HOME": str(tmp_path)} | {prefix + name: WRONG[name] for name in WRONG}, command)
    assert ended.returncode == 2, ended.stderr
    for name in WRONG:
        assert f"{prefix}{name}: must be" in ended.stderr


@pytest.mark.parametrize("module", SERVICES)
def test_what_is_not_there(tmp_path, module):
    prefix, state = SERVICES[module]
    file = tmp_path / "file"
    file.touch()
    wrong = {f"{prefix}TOKENS_FILE": str(tmp_path / "missing"), state: str(file / "state")}
    meant = {"HOME": str(tmp_path), "GATEWAY_CLAUDE_COMMAND": "claude", f"{prefix}LISTEN": "127.0.0.1:0"}
    ended = run_command(module, meant | wrong, "serve")
    assert ended.returncode == 2, ended.stderr
    for variable in wrong:
        assert f"{variable}: {tmp_path}" in ended.stderr


@pytest.mark.parametrize(
    ("url", "seconds", "told"),
    [
        ("postgresql://127.0.0.1:1/ledger", "1", "AUDIT_SEAL_KEY_FILE has to name"),
        ("postgresql://[::1/ledger", "0", "AUDIT_DB or --db: libpq cannot read it"),
    ],
)
def test_a_database_whose_key_is_not_named_or_that_cannot_be_meant(tmp_path, url, seconds, told):
    wrong = {"HOME": str(tmp_path), "AUDIT_DB": url, "AUDIT_LISTEN": "127.0.0.1:0", "AUDIT_SEAL_SECONDS": seconds}
    ended = run_command("audit_svc", wrong, "serve")
    assert ended.returncode == 2, ended.stderr
    assert told in ended.stderr
