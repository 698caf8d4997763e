"""What a migration does in either store, where both have it."""

from types import ModuleType
from typing import Any

from audit_svc.ledger import histogram


def check_0025(migrate: ModuleType, empty: Any) -> None:
    """All sums of sessions are made anew, and down takes away those of any value of a label.

    migrate: the store's module. empty: a connection to a database without tables.
    """
    migrations = migrate.load_migrations()
    summed, names = "SELECT tool_calls, model_requests FROM session_usage_summed", "SELECT name FROM named_usage"
    insert = f"INSERT INTO named_usage VALUES (?, 3600000, 0, '', 1, 0, 0, 0, 0, ?{', 0' * 8})"
    migrate.up(empty, [migration for migration in migrations if migration.version <= 24])
    empty.execute("UPDATE session_usage_summed SET tool_calls = 4, model_requests = 2")
    empty.execute(insert, ("label:team", histogram.to_blob(0)))
    migrate.up(empty, [migration for migration in migrations if migration.version <= 25])
    assert [tuple(row) for row in empty.execute(summed).fetchall()] == [(0, 0)]
    assert empty.execute(names).fetchall() == []
    for name in ("label:team", "labelled:team"):
        empty.execute(insert, (name, histogram.to_blob(0)))
    migrate.down(empty, migrations, to=24)
    assert [tuple(row) for row in empty.execute(names).fetchall()] == [("label:team",)]
