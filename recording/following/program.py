"""onrecord-send: sends what applications append to the files of a state directory.

A Ledger with an address starts it by need; it ends when all is sent and nobody is left. Run by hand, it goes on until
it is stopped.
"""

import argparse
import asyncio
import logging
import logging.handlers
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recording.kept.folder import KEEP_BYTES
from recording.locks import lock_file
from recording.log import get_logger, root_logger
from recording.producing.courier import LOG, SENDER_LOCK

if TYPE_CHECKING:
    from onrecord.audit.v1 import audit_pb2

    from recording.spool import Folders

log = get_logger(__name__)

LINGER_SECONDS = 2.0
"""How long it waits for more when all is sent, so that short-lived processes do not each start one."""

_LOCK_SECONDS = 1.0
_DRAIN_SECONDS = 5.0
_LOG_BYTES = 2**20
_FORMAT = "%(asctime)s %(levelname)s %(message)s"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="onrecord-send", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("state_dir", type=Path, help="the folder that the applications' ledgers were given")
    parser.add_argument("target", help="the audit service, host:port")
    for name in ("ca", "cert", "key", "token-file"):
        parser.add_argument(f"--{name}", type=Path, help=f"as Access.{name.replace('-', '_')}")
    parser.add_argument("--producer-name", default="", help="the name on the audit service's list of callers")
    parser.add_argument(
        "--keep-acked-bytes",
        type=int,
        default=KEEP_BYTES,
        help="how much of what is sent stays on disk, for a ledger that is restored from an old backup",
    )
    parser.add_argument(
        "--witness-seconds", type=float, default=60.0, help="how often the ledger's log is looked at; 0: never"
    )
    parser.add_argument(
        "--log-key", default="", help="the verifier key of the ledger's log; else the first that is seen"
    )
    parser.add_argument("--until-sent", action="store_true", help="end when all is sent and no application is left")
    options = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, format=_FORMAT)
    root_logger().setLevel(logging.INFO)
    root = options.state_dir.expanduser().absolute() / "spool"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = _lock(root)
    if lock is None:
        raise SystemExit(f"another process sends what lies in {options.state_dir}: a gateway, or another onrecord-send")
    orders = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    _run({**orders, "root": str(root)}, lock)


def run_detached(orders: dict[str, Any]) -> None:
    """Goes on in a process of its own, whose parent is init, as soon as it holds the lock. Returns to nobody."""
    root = Path(orders["root"])
    lock = _lock(root)
    if lock is None or os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    handler = logging.handlers.RotatingFileHandler(root / LOG, maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8")
    handler.setFormatter(logging.Formatter(_FORMAT))
    root_logger().addHandler(handler)
    root_logger().setLevel(logging.INFO)
    try:
        _run({**orders, "until_sent": True}, lock)
    except BaseException as error:
        log.error("sender.failed", error=type(error).__name__, exc_info=error)
        raise
    finally:
        os._exit(0)


def _lock(root: Path) -> int | None:
    """The lock of the one that sends. It is tried for a moment, since others look whether it is held."""
    until = time.monotonic() + _LOCK_SECONDS
    while True:
        with suppress(OSError):
            if (lock := lock_file(root / SENDER_LOCK)) is not None:
                return lock
        if time.monotonic() > until:
            return None
        time.sleep(0.02)


def _run(orders: dict[str, Any], lock: int) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(_send(orders, lock))


async def _send(orders: dict[str, Any], lock: int) -> None:
    from recording.channel.tls import ClientFiles  # gRPC loads slowly: only who holds the lock needs it
    from recording.channel.token import token_metadata
    from recording.delivery.connection import open_target
    from recording.delivery.sender import Sender
    from recording.following.follower import IDLE_LOOK_SECONDS, LOOK_SECONDS, Follower
    from recording.spool import Folders, SpoolOptions
    from recording.upkeep import attempt
    from recording.witness.witness import Witness, WitnessOptions

    paths = {name: Path(orders[name]) if orders.get(name) else None for name in ("ca", "cert", "key", "token_file")}
    files = ClientFiles(paths["ca"], paths["cert"], paths["key"]) if paths["ca"] else None
    target = open_target(orders["target"], files, paths["token_file"], orders.get("producer_name", ""))
    if token := orders.get("token"):
        target = replace(target, metadata=lambda: token_metadata(token))
    root = Path(orders["root"])
    options = SpoolOptions(keep_acked_bytes=orders["keep_acked_bytes"])
    folders = Folders(root, options)
    sender = Sender(None, target, counters=options.counters)
    follower = Follower(root, sender, options.counters)
    follower.take(lock)
    watching = WitnessOptions(orders["witness_seconds"], orders["log_key"], counters=options.counters)
    witness = Witness(root.parent, target, lambda row: _record(folders, row), watching)
    sender.on_connected = witness.look_soon
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    log.info("sender.started", root=str(root), target=target.address)
    sender.start()
    witness.start()
    alone_since: float | None = None

    async def adopt(*, surely: bool = False) -> None:
        with attempt("adoption of spools", event="spool.adoption_failed", foreseen=(OSError,)):
            if sender.adopted < _MAX_ADOPTED and follower.has_unknown():
                limit = _MAX_ADOPTED - sender.adopted
                for spool in await asyncio.to_thread(folders.adopt, limit, surely=surely):
                    sender.adopt(spool)

    while not stopping.is_set():
        await adopt()
        with attempt("following", event="spool.following_failed"):
            follower.look()
        alone = not follower.folders()  # also when somebody removed what could not be sent
        alone_since = None if not alone else alone_since or time.monotonic()
        if (
            orders.get("until_sent")
            and alone_since
            and time.monotonic() - alone_since > LINGER_SECONDS
            and witness.has_looked()
        ):
            follower.end()
            # Whoever saw the lock before now has made its folder before that.
            if not follower.folders() or not follower.begin():
                break
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS if not alone else min(IDLE_LOOK_SECONDS, 0.25)):
                await stopping.wait()
    if stopping.is_set():
        await adopt(surely=True)
        await sender.drain(_DRAIN_SECONDS)
    if sender.adopted and not stopping.is_set():
        log.error("sender.folder_gone", root=str(root), hint="somebody removed folders whose rows were not sent yet")
    await witness.aclose()
    await sender.aclose()
    follower.end()
    log.info("sender.ended", root=str(root), stored=options.counters.stored, rejected=options.counters.rejected)


def _record(folders: "Folders", row: "audit_pb2.ControlRow") -> None:
    """Puts a row into a folder of its own, which is adopted like a dead process's."""
    spool = folders.make()
    try:
        spool.append(row)
    finally:
        spool.close()


_MAX_ADOPTED = 4

if __name__ == "__main__":
    main()
