"""A replica that does nothing but follow who writes: `python -m tests.audit_svc.postgres.replica URL ADDRESS`.

It says on stdout what it is: `writes`, `stands by ADDRESS`, `knows nobody`. At a line on stdin it begins a transaction
of the writer and says `holds`; at the next it commits, and says `committed` or `refused`.
"""

import asyncio
import sys
import threading

import psycopg

from audit_svc.postgres.open.writership import Writership


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _write(url: str, writership: Writership) -> None:
    while sys.stdin.readline():
        with psycopg.connect(url) as connection:
            epoch = writership.epoch
            connection.execute("SET idle_in_transaction_session_timeout = 0")
            fenced = connection.execute(
                "UPDATE ledger_writer SET commits = commits + 1 WHERE id = 1 AND epoch = %s", (epoch,)
            )
            _tell("holds" if fenced.rowcount else "fenced off")
            sys.stdin.readline()
            try:
                connection.commit()
                _tell("committed")
            except psycopg.Error:
                _tell("refused")


async def _follow(url: str, address: str) -> None:
    def changed() -> None:
        holder = writership.holder
        stands_by = f"stands by {holder.address}" if holder else "knows nobody"
        _tell("writes" if writership.epoch else stands_by)

    writership = Writership(url, address)
    threading.Thread(target=_write, args=(url, writership), daemon=True).start()
    async with writership.running(changed):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_follow(*sys.argv[1:]))
