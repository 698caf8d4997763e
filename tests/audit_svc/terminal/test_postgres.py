"""Commands where the ledger is in PostgreSQL: those that open files say what to do, migrations work."""

from pathlib import Path

import pytest

from audit_svc.settings import AuditSettings
from audit_svc.stores.address import replica_address
from audit_svc.terminal.running import ledger_path, named_database
from service_kit.settings import describe_settings
from service_kit.terminal.command import BadParameter
from tests.support.forked import run_command
from tests.support.postgres import *  # noqa: F403 - fixtures

PASSWORD = "hunter2hunter2"
URL = f"postgresql://audit:{PASSWORD}@127.0.0.1:1/ledger"


def test_a_path_or_a_variable_that_names_a_database_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_DB", URL)
    for db, given in ((None, "AUDIT_DB"), (Path(URL), "--db")):
        with pytest.raises(BadParameter) as refused:
            ledger_path(db)
        assert refused.value.param_hint == given
        assert "--target" in str(refused.value)
        assert PASSWORD not in str(refused.value)
    assert named_database(str(Path(URL))) == URL
    assert ledger_path(Path("a.db")) == Path("a.db")
    assert PASSWORD not in str(describe_settings(AuditSettings()))


@pytest.mark.long
def test_commands_say_so_and_tell_no_password() -> None:
    for words, code in ((("vacuum",), 2), (("calls", "--db", URL), 2), (("check",), 2), (("serve",), 1)):
        ran = run_command("audit_svc", {"AUDIT_DB": URL, "AUDIT_LISTEN": "127.0.0.1:0"}, *words)
        assert ran.returncode == code, ran.stderr
        assert "PostgreSQL" in ran.stderr or "ledger's database" in ran.stderr
        assert PASSWORD not in ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("listen", "given", "address"),
    [
        ("10.1.2.3:50052", None, "10.1.2.3:50052"),
        ("10.1.2.3:50052", "audit-0.audit:50052", "audit-0.audit:50052"),
        ("ledger.internal:50052", None, "ledger.internal:50052"),
        ("0.0.0.0:50052", None, "127.0.0.1:50052"),
        ("[::]:50052", None, "127.0.0.1:50052"),
        ("127.0.0.1:0", None, ""),
        ("unix:/run/audit.sock", None, ""),
    ],
)
def test_a_replica_tells_the_others_where_it_is(listen: str, given: str | None, address: str) -> None:
    settings = AuditSettings(listen=listen, replica_address=given, allow_plaintext_on_network=True)
    assert replica_address(settings, URL) == address


@pytest.mark.postgres
def test_migrations_go_up_and_down(postgres_database: str) -> None:
    def migrate(*words: str) -> str:
        ran = run_command("audit_svc", {"AUDIT_DB": postgres_database}, "migrate", *words)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    assert "applied 0022_ledger" in migrate("up")
    assert "applied" in migrate("status")
    assert "undone 0022_ledger" in migrate("down", "--to", "0")
    assert "applied 0022_ledger" in migrate("up", "--db", postgres_database)
