"""The producers of a ledger: what came of each, what never did, and what was refused."""

# ruff: noqa: S608 - texts of ours are put together

from onrecord.audit.v1 import questions_pb2

from audit_svc.ledger.numbers import stream_id
from audit_svc.ledger.pages import Page, producer_key, take_page
from audit_svc.ledger.query import Query
from audit_svc.sql.database import Database

_WITH_HOLES = "SELECT producer_id, recorded_by FROM producer_gaps UNION SELECT producer_id, recorded_by FROM refusals"
# LIKE alone would leave out other letter cases too, in SQLite.
_OF_NO_SESSION = "(substr(id, 1, 8) <> 'session/' OR id NOT LIKE 'session/%/%')"
_KNOWN = f"SELECT id, recorded_by FROM producers WHERE {_OF_NO_SESSION} UNION {_WITH_HOLES}"
_THEIRS = "WHERE producer_id = found.id AND recorded_by = found.recorded_by"
_FOUND = (
    "WITH found(id, recorded_by) AS ({ids}) SELECT found.id, found.recorded_by, coalesce(highest_sequence, 0), "
    f"coalesce((SELECT sum(last_sequence - first_sequence + 1) FROM producer_gaps {_THEIRS}), 0), "
    f"coalesce((SELECT sum(rows) FROM refusals {_THEIRS}), 0), "
    f"coalesce((SELECT {{codes}} FROM (SELECT DISTINCT code FROM refusals {_THEIRS}) AS theirs), ''), "
    "coalesce(first_seen_at, 0), coalesce(last_seen_at, 0) FROM found "
    "LEFT JOIN producers p ON p.id = found.id AND p.recorded_by = found.recorded_by"
)


def list_producers(database: Database, query: Query) -> Page[questions_pb2.Producer]:
    """A page of producers, also those of which every row was refused; of what the agents of sessions number themselves
    (audit_svc.ledger.numbers.stream_id) what has holes.
    """
    wanted, conditions, arguments = query.filter, ["true"], list[str | int]()
    if wanted.is_whole:
        conditions.append(f"(found.id, found.recorded_by) NOT IN ({_WITH_HOLES})")
    if (name := wanted.equal.get("recorded_by")) is not None:
        conditions.append("found.recorded_by = ?")
        arguments.append(name)
    if session := wanted.equal.get("session_id"):
        begins = stream_id(session, "")
        conditions.append(f"substr(found.id, 1, {len(begins)}) = ?")
        arguments.append(begins)
    if query.after:
        conditions.append("(found.id, found.recorded_by) > (?, ?)")
        arguments += query.after
    ids = _WITH_HOLES if wanted.is_whole is False else _KNOWN
    found = _FOUND.format(ids=ids, codes=database.dialect.texts.format("code"))
    statement = f"{found} WHERE {' AND '.join(conditions)} ORDER BY 1, 2 LIMIT ?"
    return take_page(database.execute(statement, [*arguments, query.size + 1]), _producer, query.size, producer_key)


def _producer(values: tuple[str, str, int, int, int, str, int, int]) -> questions_pb2.Producer:
    id_, name, highest, missing, refused, codes, first_ms, last_ms = values
    return questions_pb2.Producer(
        id=id_,
        recorded_by=name,
        highest_sequence=highest,
        missing=missing,
        refused_rows=refused,
        refusal_codes=sorted(codes.split(",")) if codes else [],
        first_seen_ms=first_ms,
        last_seen_ms=last_ms,
    )
