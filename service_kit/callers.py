"""Who calls: the name that a call is known by, in logs and in the ledger's list of queries."""

from service_kit.errors import Context

ANONYMOUS = "anonymous"


def caller_name(context: Context) -> str:
    """The common name of the client's certificate; ANONYMOUS without one."""
    for name in context.auth_context().get("x509_common_name", []):
        return name.decode(errors="replace")
    return ANONYMOUS
