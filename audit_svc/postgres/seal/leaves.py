"""Leaves as PostgreSQL makes them: each text as `to_json` writes it, which is the form of RFC 8785.

json_build_object puts blanks between members, so the object is put together here. Of a row whose texts were erased
there is no leaf: Python makes it, since what stands in `erased` may be no JSON where somebody changed it.
"""

from audit_svc.seal.leaf import VERSION, Kind


def select(kind: Kind, where: str) -> str:
    """The statement that gives (position, leaf) of rows in the order of their positions.

    In the place of the second is NULL where encode() has to make the leaf.
    """
    pairs = sorted(
        [(name, f"""coalesce('"' || {kind.column(name)} || '"', 'null')""") for name in kind.numbers]
        + [(name, f"coalesce(to_json({kind.column(name)})::text, 'null')") for name in kind.texts]
        + [(name, _hash_sql(name)) for name in kind.hashed]
        + [("kind", f"""'"{kind.name}"'"""), ("v", f"""'"{VERSION}"'""")]
    )
    members = " || ',' || ".join(f"""'"{name}":' || {value}""" for name, value in pairs)
    leaf = f"convert_to('{{' || {members} || '}}', 'UTF8')"
    if kind.hashed:
        leaf = f"CASE WHEN erased IS NULL THEN {leaf} END"
    position = kind.column("position")
    return f"SELECT {position}, {leaf} FROM {kind.table} WHERE {where} ORDER BY {position}"  # noqa: S608 - names of ours


def _hash_sql(name: str) -> str:
    hash_ = f"encode(sha256(coalesce(salt, ''::bytea) || convert_to({name}, 'UTF8')), 'hex')"
    return f"""coalesce('"' || {hash_} || '"', 'null')"""
