"""Connections: which servers and users are refused, and that no password is told."""

import pytest

from audit_svc.errors import StoreRefused, StoreUnavailable
from audit_svc.postgres.open.connection import connect
from audit_svc.postgres.open.spelling import spelled

SECRET = "hunter2-and-more"


def test_shared_sql_in_postgresqls_spelling():
    assert spelled("SELECT ?, ?2 FROM a INDEXED BY idx_a WHERE b = ?1") == "SELECT $1, $2 FROM a  WHERE b = $1"
    assert spelled("SELECT ?1 WHERE a = ?1 AND b = ? AND c = ?") == "SELECT $1 WHERE a = $1 AND b = $2 AND c = $3"
    assert spelled("x IN (SELECT value FROM json_each(?))") == (
        "x IN (SELECT value::bigint FROM json_array_elements_text($1::json))"
    )


@pytest.mark.parametrize(
    "url",
    [f"postgresql://ada:{SECRET}@[host/db", f"password={SECRET} nonsense", f"postgresql://u:{SECRET}@h/d?x=1"],
)
def test_a_url_that_cannot_be_read_is_not_quoted(url):
    with pytest.raises(StoreRefused) as refused:
        connect(url)
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_server_that_is_not_there_is_a_passing_fault():
    with pytest.raises(StoreUnavailable) as failed:
        connect(f"postgresql://ada:{SECRET}@127.0.0.1:1/db")
    assert SECRET not in str(failed.value)


@pytest.mark.postgres
def test_a_database_that_is_not_there_and_an_encoding_are_refused(postgres_server):
    with pytest.raises(StoreRefused, match="has no such database: create it first"):
        connect(postgres_server.url("nowhere"))
    with pytest.raises(StoreRefused, match="refuses this user"):
        connect(postgres_server.url(user="nobody"))
    postgres_server.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    with pytest.raises(StoreRefused, match="has the encoding LATIN1: create it with UTF8"):
        connect(postgres_server.url("latin"))


@pytest.mark.postgres
def test_commits_are_synced_whatever_the_servers_default(postgres_server, postgres_database):
    name = postgres_database.rpartition("/")[2]
    for default, used in (("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")):
        postgres_server.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = {default}')
        connection = connect(postgres_database, writes=True)
        assert connection.execute("SHOW synchronous_commit").fetchall() == [(used,)]
        connection.close()
