"""audit_svc on a database of a PostgreSQL server, and what processes take."""

import os
import time
from pathlib import Path

import psycopg

from demo.processes import Service, start_service


def start_replica(url: str, **settings: str) -> Service:
    """audit_svc on the database at url, which it may share with others."""
    env = {
        "AUDIT_LISTEN": "127.0.0.1:0",
        "AUDIT_DB": url,
        "AUDIT_LOG_LEVEL": "info",
        "AUDIT_SEAL_SECONDS": "0",
        **settings,
    }
    return start_service("audit_svc", env, "serve", listen_seconds=60)


def cpu_seconds(pid: int) -> float:
    """The CPU time that a process and its children have taken, those that have ended and been waited for too."""
    folder = Path(f"/proc/{pid}")
    try:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        children = (folder / "task" / str(pid) / "children").read_text().split()
    except FileNotFoundError:  # it has just ended, and its parent's time has its own
        return 0.0
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds(int(child)) for child in children)


def wait_until_summed(url: str) -> None:
    """Waits until the sums that are made in the idle time of the writer have all rows."""
    left = (
        "SELECT (SELECT coalesce(max(position), 0) FROM tool_call_log) - tool_calls, "
        "(SELECT coalesce(max(position), 0) FROM cost_log) - model_requests FROM session_usage_summed"
    )
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute(left).fetchall() != [(0, 0)]:
            time.sleep(0.5)
